"""The things scenes are made of (see `pictures`): stripes, shapes, blotches, letters, grain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Mark = Literal[
    "stripes", "columns", "cross", "saltire", "diagonal", "hoist", "canton", "disc", "star",
    "polygon", "ring", "rectangle", "crescent", "blob", "letters", "grain",
]  # fmt: skip
Colour = tuple[int, int, int]

GROUNDS: tuple[Mark, ...] = (
    "stripes", "columns", "cross", "saltire", "diagonal", "hoist", "canton",
)  # fmt: skip
CHARGES: tuple[Mark, ...] = (
    "disc", "star", "polygon", "ring", "rectangle", "crescent", "letters",
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


def draw_layer(canvas: Image.Image, layer: Layer) -> None:
    """Draw one layer onto what is there."""
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
    if layer.mark in GROUNDS:
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
