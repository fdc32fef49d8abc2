"""What people do to a picture before they show it again: crop, border, screenshot, and so on.

view_of(picture, rng)                 one to three changes, each drawn
view_of(picture, rng, only="grey")    that one
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from editing_core.types import ImageArray

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
_PLAIN = ((255, 255, 255), (0, 0, 0), (127, 127, 127))


def view_of(image: ImageArray, rng: np.random.Generator, *, only: str | None = None) -> ImageArray:
    """Another copy of `image` (`uint8 [height, width, 3]`), maybe of another size."""
    picture = Image.fromarray(image)
    if only is not None:
        return np.asarray(CHANGES[only](picture, rng))
    names = list(CHANGES)
    count = int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))
    for name in rng.choice(names, count, replace=False, p=_SHARES):
        picture = CHANGES[str(name)](picture, rng)
    return np.asarray(picture)


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = picture.size
    kept = rng.uniform(0.72, 1.0, 2)
    left, top = rng.random(2) * (1.0 - kept)
    box = (left * width, top * height, (left + kept[0]) * width, (top + kept[1]) * height)
    return picture.crop(tuple(round(edge) for edge in box))


def _border(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.01, 0.14)
    wide = max(1, round(share * max(picture.size)))
    return ImageOps.expand(picture, wide, _ground(rng))


def _screenshot(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Inside a window: bars above and beside it, more ground on one side than on the other."""
    width, height = picture.size
    more = rng.uniform(0.02, 0.35, 2)
    size = (round(width * (1 + more[0])), round(height * (1 + more[1])))
    canvas = Image.new("RGB", size, _ground(rng))
    pen = ImageDraw.Draw(canvas)
    left, top = (
        int(rng.integers(0, whole - part + 1))
        for whole, part in zip(size, picture.size, strict=True)
    )
    pen.rectangle((0, 0, size[0], top), _ground(rng))
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        pen.rectangle((x, y, x + rng.integers(4, 40), y + 3), _ground(rng))
    canvas.paste(picture, (left, top))
    return canvas


def _mirror(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    del rng
    return ImageOps.mirror(picture)


def _grey(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    del rng
    return picture.convert("L").convert("RGB")


def _recompress(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(rng.integers(12, 80)))
    return Image.open(stream).convert("RGB")


def _small(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.3, 0.8)
    return picture.resize([max(8, round(side * share)) for side in picture.size])


def _light(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(rng.uniform(0.65, 1.35))
    cast = rng.uniform(0.88, 1.12, 3)
    return Image.fromarray(np.clip(np.asarray(picture) * cast, 0, 255).astype(np.uint8))


def _glare(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A soft bright spot."""
    width, height = picture.size
    rows, columns = np.mgrid[0:height, 0:width]
    x, y = rng.random(2) * (width, height)
    radius = rng.uniform(0.12, 0.4) * max(width, height)
    spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
    spot = rng.uniform(0.4, 0.9) * spot[..., None]
    return Image.fromarray((np.asarray(picture) * (1 - spot) + 255 * spot).astype(np.uint8))


def _turn(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    angle = rng.uniform(-9.0, 9.0)
    return picture.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=_ground(rng))


def _blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.0)))


def _ground(rng: np.random.Generator) -> tuple[int, ...]:
    if rng.random() < 0.7:
        return _PLAIN[int(rng.integers(len(_PLAIN)))]
    return tuple(rng.integers(0, 256, 3).tolist())


CHANGES: Mapping[str, Change] = {
    "crop": _crop,
    "border": _border,
    "screenshot": _screenshot,
    "mirror": _mirror,
    "grey": _grey,
    "recompress": _recompress,
    "small": _small,
    "light": _light,
    "glare": _glare,
    "turn": _turn,
    "blur": _blur,
}
"""By name, each with its own strength drawn."""
_SHARES = np.array([3, 2, 2, 2, 1, 1, 1, 2, 1.5, 1.5, 1], dtype=float)
_SHARES /= _SHARES.sum()
