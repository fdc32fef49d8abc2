"""Near pictures: what a copy never is, though it looks much like one.

    near_of(picture, rng)                  one of the changes, drawn
    near_of(picture, rng, only="sign")     that one

    shade    one of its colours is another
    swap     two of its colours change places
    sign     something small more in it
    moved    a piece of it lies somewhere else
    gone     a piece of it is painted over

Views (`eye_views`) are the same picture again; these are other pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from editing_core.training.eye_strangers import draw_shape
from editing_core.types import ImageArray

Change = Callable[[ImageArray, np.random.Generator], ImageArray]

_COLOURS = 6
"""A picture is taken to have so many colours, each with its shades."""
_LEAST_AREA, _LEAST_STEP = 0.06, 70.0
"""The share of a picture that is painted anew, at least, and how far its colour goes (of 441)."""
_LEAST_CHANGE = 0.006
"""Mean change of all levels, of 1: less is no other picture."""
_TRIES = 8


def near_of(image: ImageArray, rng: np.random.Generator, *, only: str | None = None) -> ImageArray:
    """Another picture than `image` (`uint8 [height, width, 3]`), of the same size.

    A change that does not show is tried again; after some tries a colour of all of it changes.
    """
    names = list(NEAR)
    for _ in range(_TRIES):
        name = str(rng.choice(names, p=_SHARES)) if only is None else only
        changed = NEAR[name](image, rng)
        if np.abs(changed.astype(np.int16) - image).mean() / 255.0 >= _LEAST_CHANGE:
            return changed
    return _tinted(image, rng)


def _shade(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    labels, colours, shares = _parted(image)
    large = np.flatnonzero(shares >= _LEAST_AREA)
    chosen = int(rng.choice(large))
    return _repainted(image, labels, {chosen: _other(colours[chosen], rng) - colours[chosen]})


def _swap(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    labels, colours, shares = _parted(image)
    large = np.flatnonzero(shares >= _LEAST_AREA)
    if len(large) < 2:
        return image
    one, two = (int(i) for i in rng.choice(large, 2, replace=False))
    step = colours[two] - colours[one]
    return _repainted(image, labels, {one: step, two: -step})


def _sign(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    picture = Image.fromarray(image)
    size = rng.uniform(0.07, 0.16) * min(picture.size)
    at = rng.uniform(0.15, 0.85, 2) * picture.size
    here = image[int(at[1]), int(at[0])].astype(np.float64)
    ink = tuple(int(level) for level in _other(here, rng))
    return np.asarray(draw_shape(picture.copy(), (float(at[0]), float(at[1])), size, ink, rng))


def _moved(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    (top, left), (high, wide) = _patch(image, rng)
    (y, x), changed = _place(image, high, wide, rng), image.copy()
    changed[y : y + high, x : x + wide] = image[top : top + high, left : left + wide]
    return changed


def _gone(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    (top, left), (high, wide) = _patch(image, rng)
    changed, piece = image.copy(), image[top : top + high, left : left + wide]
    edge = np.concatenate([piece[0], piece[-1], piece[:, 0], piece[:, -1]])
    changed[top : top + high, left : left + wide] = np.median(edge, axis=0).astype(np.uint8)
    return changed


def _tinted(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    mean = image.reshape(-1, 3).mean(0)
    tinted: ImageArray = np.clip(image + (_other(mean, rng) - mean), 0, 255).astype(np.uint8)
    return tinted


def _parted(image: ImageArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of its colours each pixel has, those colours, and their shares of the picture."""
    reduced = Image.fromarray(image).quantize(_COLOURS, Image.Quantize.MEDIANCUT)
    labels = np.asarray(reduced)
    shares = np.bincount(labels.ravel(), minlength=_COLOURS) / labels.size
    colours = np.stack(
        [image[labels == i].mean(0) if share else np.zeros(3) for i, share in enumerate(shares)]
    )
    return labels, colours, shares


def _repainted(
    image: ImageArray, labels: np.ndarray, steps: Mapping[int, np.ndarray]
) -> ImageArray:
    """Shades stay: every pixel of a colour goes the same way."""
    changed = image.astype(np.float64)
    for label, step in steps.items():
        changed[labels == label] += step
    return np.clip(changed, 0, 255).astype(np.uint8)


def _other(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour that anybody would call another one."""
    while True:
        found = rng.integers(0, 256, 3).astype(np.float64)
        if np.linalg.norm(found - colour) >= _LEAST_STEP:
            return found


def _patch(image: ImageArray, rng: np.random.Generator) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of a few places the one with most to see: its corner, and its size."""
    high, wide = (round(float(rng.uniform(0.16, 0.34)) * side) for side in image.shape[:2])
    places = [_place(image, high, wide, rng) for _ in range(6)]
    return max(
        places, key=lambda at: float(image[at[0] : at[0] + high, at[1] : at[1] + wide].std())
    ), (high, wide)


def _place(image: ImageArray, high: int, wide: int, rng: np.random.Generator) -> tuple[int, int]:
    return (
        int(rng.integers(0, image.shape[0] - high + 1)),
        int(rng.integers(0, image.shape[1] - wide + 1)),
    )


NEAR: Mapping[str, Change] = {
    "shade": _shade,
    "swap": _swap,
    "sign": _sign,
    "moved": _moved,
    "gone": _gone,
}
"""By name."""
_SHARES = np.array([0.35, 0.15, 0.2, 0.15, 0.15])
