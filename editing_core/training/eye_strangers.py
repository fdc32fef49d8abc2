"""Drawn pictures that an emblem's CLIP may take for emblems: banners and signs with a few shapes.

    stranger(rng)      a banner, a face or a sign, `uint8 [height, width, 3]`

Nobody's banner or sign: bands, crosses, discs, stars and faces in random colours.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from PIL import Image, ImageDraw

from editing_core.types import ImageArray

_FINE = 4
"""Drawn so many times as large, for smooth edges."""
_STRONG = (
    (206, 17, 38),
    (0, 56, 147),
    (0, 122, 61),
    (252, 209, 22),
    (255, 255, 255),
    (0, 0, 0),
    (255, 130, 0),
    (90, 180, 230),
)
_SKINS = ((255, 204, 77), (255, 220, 93), (120, 200, 90), (240, 120, 90), (170, 140, 230))
_WHITE = (255, 255, 255)

Colour = tuple[int, ...]
Point = tuple[float, float]


def stranger(rng: np.random.Generator) -> ImageArray:
    """See the module's docstring; its longer side is of 72 to 320 pixels."""
    draw = (_banner, _face, _sign)[int(rng.choice(3, p=[0.5, 0.2, 0.3]))]
    side = int(rng.integers(72, 320))
    picture = draw(side * _FINE, rng)
    return np.asarray(picture.reduce(_FINE))


def _banner(side: int, rng: np.random.Generator) -> Image.Image:
    height = round(side * float(rng.choice([0.5, 0.6, 2 / 3, 0.75, 1.0])))
    picture = Image.new("RGB", (side, height), _colour(rng))
    pen = ImageDraw.Draw(picture)
    count, is_upright = int(rng.integers(1, 6)), rng.random() < 0.4
    edges = np.linspace(0, side if is_upright else height, count + 1)
    for low, high in itertools.pairwise(edges):
        pen.rectangle((low, 0, high, height) if is_upright else (0, low, side, high), _colour(rng))
    for _ in range(int(rng.integers(0, 3))):
        _charge(pen, side, height, rng)
    return picture


def _charge(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    """A cross, a saltire, a wedge, a corner, or a few shapes somewhere."""
    kind, ink = int(rng.integers(6)), _colour(rng)
    thick = height * rng.uniform(0.06, 0.25)
    if kind == 0:
        x = width * float(rng.choice([0.36, 0.5]))
        pen.rectangle((x - thick / 2, 0, x + thick / 2, height), ink)
        pen.rectangle((0, (height - thick) / 2, width, (height + thick) / 2), ink)
    elif kind == 1:
        for start, end in (((0, 0), (width, height)), ((0, height), (width, 0))):
            pen.line((start, end), ink, round(thick))
    elif kind == 2:
        pen.polygon([(0, 0), (width * rng.uniform(0.25, 0.6), height / 2), (0, height)], ink)
    elif kind == 3:
        right, low = width * rng.uniform(0.3, 0.5), height * rng.uniform(0.4, 0.6)
        pen.rectangle((0, 0, right, low), ink)
        _shape(pen, (right / 2, low / 2), low * 0.35, _colour(rng), rng)
    else:
        x, y = rng.uniform(0.2, 0.8, 2) if kind == 5 else (0.5, 0.5)
        for _ in range(int(rng.choice([1, 1, 1, 3, 5]))):
            size = height * rng.uniform(0.08, 0.32)
            _shape(pen, (x * width, y * height), size, ink, rng)
            x, y = rng.uniform(0.15, 0.85, 2)


def _face(side: int, rng: np.random.Generator) -> Image.Image:
    picture = Image.new("RGB", (side, side), _ground(rng))
    pen = ImageDraw.Draw(picture)
    skin = _SKINS[int(rng.integers(len(_SKINS)))] if rng.random() < 0.7 else _colour(rng)
    middle, size = side / 2, side * rng.uniform(0.36, 0.5)
    _disc(pen, (middle, middle), size, skin)
    ink = tuple(int(level * 0.3) for level in skin)
    apart, up, eye = size * rng.uniform(0.3, 0.45), size * rng.uniform(0.1, 0.3), size * 0.12
    for x in (middle - apart, middle + apart):
        high = eye * rng.uniform(0.4, 1.8)
        pen.ellipse((x - eye, middle - up - high, x + eye, middle - up + high), ink)
    mouth, low = size * rng.uniform(0.15, 0.6), middle + size * 0.15
    box = (middle - mouth, low, middle + mouth, low + size * rng.uniform(0.15, 0.5))
    if rng.random() < 0.5:
        pen.chord(box, 0, 180, ink)
    else:
        start = int(rng.choice([0, 180]))
        pen.arc(box, start, start + 180, ink, round(size * 0.08))
    return picture


def _sign(side: int, rng: np.random.Generator) -> Image.Image:
    """A few shapes on plain ground, on a plate at times."""
    picture = Image.new("RGB", (side, side), _ground(rng))
    pen = ImageDraw.Draw(picture)
    if rng.random() < 0.5:
        edge = side * rng.uniform(0.0, 0.15)
        pen.rounded_rectangle(
            (edge, edge, side - edge, side - edge), side * rng.uniform(0.0, 0.4), _colour(rng)
        )
    for number in range(int(rng.integers(1, 5))):
        place = rng.uniform(0.25, 0.75, 2) if number else np.array([0.5, 0.5])
        size = side * rng.uniform(0.08, 0.2 if number else 0.42)
        x, y = (place * side).tolist()
        _shape(pen, (x, y), size, _colour(rng), rng)
    return picture


def draw_shape(
    picture: Image.Image, at: Point, size: float, ink: Colour, rng: np.random.Generator
) -> Image.Image:
    """One shape of `size` about `at`, drawn onto `picture`."""
    _shape(ImageDraw.Draw(picture), at, size, ink, rng)
    return picture


def _shape(
    pen: ImageDraw.ImageDraw, at: Point, size: float, ink: Colour, rng: np.random.Generator
) -> None:
    """A disc, a ring, a crescent, a star, a polygon, a heart or a block."""
    x, y = at
    kind = int(rng.integers(7))
    if kind == 0:
        _disc(pen, at, size, ink)
    elif kind == 1:
        box = (x - size, y - size, x + size, y + size)
        pen.ellipse(box, None, ink, max(1, round(size * rng.uniform(0.1, 0.4))))
    elif kind == 2:
        _disc(pen, at, size, ink)
        _disc(pen, (x + size * 0.35, y), size * 0.8, _colour(rng))
    elif kind == 3:
        points = int(rng.integers(4, 9))
        turns = np.arange(2 * points) * math.pi / points - math.pi / 2
        reach = size * np.where(np.arange(2 * points) % 2, rng.uniform(0.35, 0.6), 1.0)
        pen.polygon(_around(at, turns, reach), ink)
    elif kind == 4:
        corners = int(rng.integers(3, 8))
        turns = np.arange(corners) * 2 * math.pi / corners + rng.uniform(0, math.pi)
        pen.polygon(_around(at, turns, np.full(corners, size)), ink)
    elif kind == 5:
        half = size / 2
        for left in (x - half, x + half):
            _disc(pen, (left, y - half), half * 1.1, ink)
        pen.polygon([(x - size, y - half / 2), (x + size, y - half / 2), (x, y + size)], ink)
    else:
        wide, high = size * rng.uniform(0.3, 1.0, 2)
        pen.rounded_rectangle((x - wide, y - high, x + wide, y + high), wide * 0.3, ink)


def _around(at: Point, turns: np.ndarray, reach: np.ndarray) -> list[Point]:
    across, down = at[0] + reach * np.cos(turns), at[1] + reach * np.sin(turns)
    return list(zip(across.tolist(), down.tolist(), strict=True))


def _disc(pen: ImageDraw.ImageDraw, at: Point, size: float, ink: Colour) -> None:
    pen.ellipse((at[0] - size, at[1] - size, at[0] + size, at[1] + size), ink)


def _colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.65:
        return _STRONG[int(rng.integers(len(_STRONG)))]
    return tuple(rng.integers(0, 256, 3).tolist())


def _ground(rng: np.random.Generator) -> Colour:
    return _WHITE if rng.random() < 0.7 else _colour(rng)
