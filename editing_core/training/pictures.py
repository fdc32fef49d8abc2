"""Pictures of nothing in particular: what people show beyond the embedded world, drawn by rule.

A scene is a list of layers: stripes and crosses as on flags, simple shapes as on icons and labels,
blotches and textures as in photographs, a few letters. Its look-alike has one layer changed. Views
are the same scene as another file of it: other size and proportions, shading, light, blur, noise,
a margin, compression.

They widen what the router and the editors are trained on; the base model never sees them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from editing_core.training.marks import CHARGES, GROUNDS, Colour, Layer, draw_layer

_T = TypeVar("_T")

_SIDE = 192
_TRIES = 20
_STRONG: tuple[Colour, ...] = (
    (206, 17, 38), (0, 56, 147), (0, 122, 61), (255, 205, 0), (255, 255, 255), (12, 12, 12),
    (255, 130, 0), (108, 172, 228), (128, 0, 32), (0, 40, 104), (94, 59, 28), (120, 60, 150),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """Layers from back to front, on a ground, with the proportions of the original."""

    ground: Colour
    layers: tuple[Layer, ...]
    aspect: float = 1.0


def draw_scene(rng: np.random.Generator) -> Scene:
    """A flag in five of ten, an icon in three, something like a photograph in two."""
    kind = rng.random()
    if kind < 0.5:
        field = Layer(
            _pick(GROUNDS, rng), _colours(rng, 4), size=rng.uniform(0.15, 0.4),
            count=int(rng.choice([2, 3, 3, 3, 5, 9])), seed=_seed(rng),
        )  # fmt: skip
        charges = tuple(_charge(rng) for _ in range(int(rng.integers(0, 3))))
        layers = (field, *charges) if rng.random() < 0.85 or not charges else charges
        return Scene(_pick(_STRONG, rng), layers, _pick((1.5, 1.5, 2.0, 1.33, 1.67), rng))
    if kind < 0.8:
        marks = tuple(_charge(rng, big=i == 0) for i in range(int(rng.integers(2, 7))))
        return Scene((255, 255, 255), marks)
    ground = _any_colour(rng)
    blobs = tuple(
        Layer(
            "blob", (_any_colour(rng),), (rng.random(), rng.random()), rng.uniform(0.2, 0.7),
            seed=_seed(rng),
        )
        for _ in range(int(rng.integers(3, 8)))
    )  # fmt: skip
    things = tuple(_charge(rng) for _ in range(int(rng.integers(1, 5))))
    grain = Layer("grain", (), size=rng.uniform(4, 26), seed=_seed(rng))
    return Scene(ground, (*blobs, *things, grain), aspect=rng.uniform(0.7, 1.4))


def look_alike(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one of its layers, or its ground, changed so that it can be seen."""
    before = _render(scene)
    for _ in range(_TRIES):
        changed = _change(scene, rng)
        if _is_visible(before, _render(changed)):
            return changed
    return replace(scene, layers=(*scene.layers, _charge(rng, big=True)))


def _change(scene: Scene, rng: np.random.Generator) -> Scene:
    """One layer, or the ground, changed; what lies in front may hide it."""
    seen = [i for i, layer in enumerate(scene.layers) if layer.mark not in ("grain", "blob")]
    if not seen:
        return replace(scene, ground=_another(scene.ground, rng))
    index = seen[int(rng.integers(len(seen)))]
    layer = scene.layers[index]
    kind = rng.random()
    if kind < 0.5:
        place = int(rng.integers(len(layer.colours)))
        colours = list(layer.colours)
        colours[place] = _another(colours[place], rng)
        changed = replace(layer, colours=tuple(colours))
    elif kind < 0.7 and layer.mark in CHARGES:
        others = tuple(mark for mark in CHARGES if mark != layer.mark)
        changed = replace(layer, mark=_pick(others, rng))
    elif kind < 0.85 or layer.mark in GROUNDS:
        grounds = tuple(m for m in GROUNDS if m != layer.mark)
        if layer.mark in GROUNDS:
            changed = replace(layer, mark=_pick(grounds, rng))
        else:
            changed = replace(layer, size=layer.size * _pick((0.6, 1.5), rng))
    else:
        return replace(scene, layers=scene.layers[:index] + scene.layers[index + 1 :])
    return replace(scene, layers=(*scene.layers[:index], changed, *scene.layers[index + 1 :]))


def view_scene(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another file of the scene: RGB `uint8 [height, width, 3]`."""
    canvas = _render(scene)
    aspect = scene.aspect * rng.uniform(0.85, 1.2)
    height = int(rng.integers(72, 160))
    picture = canvas.resize((max(48, round(height * aspect)), height), Image.Resampling.LANCZOS)
    if rng.random() < 0.35:
        picture = _margin(picture, rng)
    if rng.random() < 0.3:
        picture = picture.rotate(
            rng.uniform(-6, 6), Image.Resampling.BILINEAR, fillcolor=picture.getpixel((0, 0))
        )
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return _light(picture, rng)


def _render(scene: Scene) -> Image.Image:
    canvas = Image.new("RGB", (round(_SIDE * scene.aspect), _SIDE), scene.ground)
    for layer in scene.layers:
        draw_layer(canvas, layer)
    return canvas


def _is_visible(before: Image.Image, after: Image.Image) -> bool:
    """Whether a hundredth of the picture changed by more than light and noise change it."""
    apart = np.abs(np.asarray(before, dtype=np.int16) - np.asarray(after, dtype=np.int16))
    return bool((apart.max(axis=2) > 60).mean() > 0.01)


def _margin(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    room = int(rng.integers(1, 14))
    colour = (255, 255, 255) if rng.random() < 0.7 else _any_colour(rng)
    framed = Image.new("RGB", (picture.width + 2 * room, picture.height + 2 * room), colour)
    framed.paste(picture, (room, room))
    return framed


def _light(picture: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    pixels = np.asarray(picture, dtype=np.float64)
    if rng.random() < 0.4:  # folds, as on a flag in the wind
        ramp = np.linspace(0, rng.uniform(1, 3) * 2 * np.pi, pixels.shape[1]) + rng.uniform(0, 6)
        pixels = pixels * (1 + rng.uniform(0, 0.15) * np.sin(ramp))[None, :, None]
    pixels = pixels * rng.uniform(0.85, 1.08) * (1 + rng.uniform(-0.05, 0.05, 3))
    pixels = pixels + rng.uniform(-8, 8)
    if rng.random() < 0.4:
        pixels = pixels + rng.normal(0, rng.uniform(0, 7), pixels.shape)
    out = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        file = io.BytesIO()
        Image.fromarray(out).save(file, "JPEG", quality=int(rng.integers(35, 92)))
        out = np.asarray(Image.open(file).convert("RGB"))
    return out


def _charge(rng: np.random.Generator, *, big: bool = False) -> Layer:
    return Layer(
        _pick(CHARGES, rng),
        _colours(rng, 2),
        (float(rng.choice([0.2, 0.35, 0.5, 0.5, 0.65, 0.8])), float(rng.uniform(0.25, 0.75))),
        rng.uniform(0.7, 0.95) if big else rng.uniform(0.2, 0.6),
        count=int(rng.choice([1, 1, 1, 2, 3])),
        seed=_seed(rng),
    )


def _colours(rng: np.random.Generator, count: int) -> tuple[Colour, ...]:
    order = rng.permutation(len(_STRONG))[:count]
    return tuple(_shade(_STRONG[int(i)], rng) for i in order)


def _shade(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = (int(np.clip(part + rng.integers(-18, 19), 0, 255)) for part in colour)
    return red, green, blue


def _another(colour: Colour, rng: np.random.Generator) -> Colour:
    far = [c for c in _STRONG if sum(abs(a - b) for a, b in zip(c, colour, strict=True)) > 120]
    return _pick(tuple(far), rng)


def _any_colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(part) for part in rng.integers(20, 236, 3))
    return red, green, blue


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 20))


def _pick(options: Sequence[_T], rng: np.random.Generator) -> _T:
    return options[int(rng.integers(len(options)))]
