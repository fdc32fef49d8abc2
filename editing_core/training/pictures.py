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
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Mark = Literal[
    "stripes", "columns", "cross", "saltire", "diagonal", "hoist", "canton", "disc", "star",
    "polygon", "ring", "rectangle", "crescent", "blob", "letters", "grain",
]  # fmt: skip
Colour = tuple[int, int, int]
_T = TypeVar("_T")

_SIDE = 192
_FLAG_GROUNDS: tuple[Mark, ...] = (
    "stripes", "columns", "cross", "saltire", "diagonal", "hoist", "canton",
)  # fmt: skip
_CHARGES: tuple[Mark, ...] = (
    "disc", "star", "polygon", "ring", "rectangle", "crescent", "letters",
)  # fmt: skip
_STRONG: tuple[Colour, ...] = (
    (206, 17, 38), (0, 56, 147), (0, 122, 61), (255, 205, 0), (255, 255, 255), (12, 12, 12),
    (255, 130, 0), (108, 172, 228), (128, 0, 32), (0, 40, 104), (94, 59, 28), (120, 60, 150),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing drawn. `place` and `size` are shares of the picture; `count` repeats or splits."""

    mark: Mark
    colours: tuple[Colour, ...]
    place: tuple[float, float] = (0.5, 0.5)
    size: float = 0.3
    count: int = 1
    seed: int = 0


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
            _pick(_FLAG_GROUNDS, rng), _colours(rng, 4), size=rng.uniform(0.15, 0.4),
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
    """The scene with one of its layers, or its ground, visibly changed."""
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
        # Grounds draw only as many colours as they have parts; change one that shows.
        colours[0] = _another(colours[0], rng) if place >= layer.count else colours[0]
        changed = replace(layer, colours=tuple(colours))
    elif kind < 0.7 and layer.mark in _CHARGES:
        others = tuple(mark for mark in _CHARGES if mark != layer.mark)
        changed = replace(layer, mark=_pick(others, rng))
    elif kind < 0.85 or layer.mark in _FLAG_GROUNDS:
        grounds = tuple(m for m in _FLAG_GROUNDS if m != layer.mark)
        if layer.mark in _FLAG_GROUNDS:
            changed = replace(layer, mark=_pick(grounds, rng))
        else:
            changed = replace(layer, size=layer.size * _pick((0.6, 1.5), rng))
    else:
        return replace(scene, layers=scene.layers[:index] + scene.layers[index + 1 :])
    return replace(scene, layers=(*scene.layers[:index], changed, *scene.layers[index + 1 :]))


def view_scene(scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Another file of the scene: RGB `uint8 [height, width, 3]`."""
    canvas = Image.new("RGB", (round(_SIDE * scene.aspect), _SIDE), scene.ground)
    for layer in scene.layers:
        _draw(canvas, layer)
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


def _draw(canvas: Image.Image, layer: Layer) -> None:
    if layer.mark == "grain":
        noise = np.random.default_rng(layer.seed).normal(0, layer.size, (canvas.height, 1, 1))
        grain = np.random.default_rng(layer.seed).normal(
            0, layer.size, (canvas.height // 3, canvas.width // 3, 3)
        )
        rough = Image.fromarray(np.clip(128 + grain, 0, 255).astype(np.uint8)).resize(canvas.size)
        pixels = np.asarray(canvas, dtype=np.float32) + np.asarray(rough, dtype=np.float32) - 128
        canvas.paste(Image.fromarray(np.clip(pixels + 0.3 * noise, 0, 255).astype(np.uint8)))
        return
    if layer.mark == "blob":
        _draw_blob(canvas, layer)
        return
    pen = ImageDraw.Draw(canvas)
    if layer.mark in _FLAG_GROUNDS:
        _draw_ground(pen, canvas.size, layer)
    else:
        for centre in _places(layer, canvas.size):
            _draw_charge(pen, centre, layer.size * canvas.height / 2 / layer.count**0.4, layer)


def _draw_ground(pen: ImageDraw.ImageDraw, size: tuple[int, int], layer: Layer) -> None:
    width, height = size
    first, second, third = layer.colours[:3]
    thick = layer.size * height / 2
    if layer.mark in ("stripes", "columns"):
        long = height if layer.mark == "stripes" else width
        edges = np.linspace(0, long, layer.count + 1)
        for i in range(layer.count):
            colour = layer.colours[i % (3 if layer.count == 3 else 2)]
            low, high = edges[i], edges[i + 1]
            box = (0, low, width, high) if layer.mark == "stripes" else (low, 0, high, height)
            pen.rectangle(box, fill=colour)
        return
    pen.rectangle((0, 0, width, height), fill=first)
    if layer.mark == "cross":
        centre = width * (0.36 if layer.seed % 2 else 0.5)
        for reach, colour in ((thick, second), (thick / 2, third)):
            pen.rectangle((centre - reach / 2, 0, centre + reach / 2, height), fill=colour)
            pen.rectangle((0, (height - reach) / 2, width, (height + reach) / 2), fill=colour)
    elif layer.mark == "saltire":
        pen.line((0, 0, width, height), fill=second, width=round(thick))
        pen.line((0, height, width, 0), fill=second, width=round(thick))
    elif layer.mark == "diagonal":
        pen.polygon(((0, 0), (width, 0), (0, height)), fill=second)
        pen.line((0, height, width, 0), fill=third, width=round(thick))
    elif layer.mark == "hoist":
        pen.rectangle((0, height / 2, width, height), fill=second)
        pen.polygon(((0, 0), (width * (0.2 + layer.size), height / 2), (0, height)), fill=third)
    else:  # canton
        for i in range(layer.count):
            top = height * i / layer.count
            colour = (first, second)[i % 2]
            pen.rectangle((0, top, width, top + height / layer.count), fill=colour)
        pen.rectangle((0, 0, width * 0.45, height * 0.5), fill=third)


def _draw_charge(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, layer: Layer
) -> None:
    x, y = centre
    fill, edge = layer.colours[0], layer.colours[1]
    box = (x - radius, y - radius, x + radius, y + radius)
    if layer.mark == "disc":
        pen.ellipse(box, fill=fill)
    elif layer.mark == "ring":
        pen.ellipse(box, outline=fill, width=max(2, round(radius / 3)))
    elif layer.mark == "rectangle":
        tall = 0.4 + 0.1 * (layer.seed % 8)
        pen.rectangle((x - radius, y - tall * radius, x + radius, y + tall * radius), fill=fill)
    elif layer.mark == "crescent":
        pen.chord(box, 60, 300, fill=fill)
    elif layer.mark == "letters":
        letters = "".join(chr(65 + (layer.seed // 7**i) % 26) for i in range(1 + layer.seed % 3))
        font = ImageFont.load_default(size=max(8.0, radius * 1.2))
        pen.text((x, y), letters, fill=fill, font=font, anchor="mm")
    else:
        points = 5 + layer.seed % 4 if layer.mark == "star" else 3 + layer.seed % 4
        turn = -np.pi / 2
        if layer.mark == "star":
            reach = [radius if i % 2 == 0 else radius * 0.42 for i in range(2 * points)]
        else:
            reach = [radius] * points
        angles = turn + 2 * np.pi * np.arange(len(reach)) / len(reach)
        corners = [
            (x + r * float(np.cos(a)), y + r * float(np.sin(a)))
            for r, a in zip(reach, angles, strict=True)
        ]
        pen.polygon(corners, fill=fill, outline=edge if layer.seed % 3 == 0 else fill)


def _draw_blob(canvas: Image.Image, layer: Layer) -> None:
    random = np.random.default_rng(layer.seed)
    mask = Image.new("L", canvas.size, 0)
    radius = layer.size * canvas.height
    x, y = layer.place[0] * canvas.width, layer.place[1] * canvas.height
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    reach = radius * random.uniform(0.5, 1.1, len(angles))
    corners = [
        (x + r * float(np.cos(a)), y + r * float(np.sin(a)))
        for r, a in zip(reach, angles, strict=True)
    ]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    soft = mask.filter(ImageFilter.GaussianBlur(float(random.uniform(1, 14))))
    canvas.paste(Image.new("RGB", canvas.size, layer.colours[0]), mask=soft)


def _places(layer: Layer, size: tuple[int, int]) -> list[tuple[float, float]]:
    x, y = layer.place[0] * size[0], layer.place[1] * size[1]
    step = layer.size * size[1] * 0.7
    return [(x + (i - (layer.count - 1) / 2) * step, y) for i in range(layer.count)]


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
        _pick(_CHARGES, rng),
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
