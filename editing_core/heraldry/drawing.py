"""Draws an emblem flat and centred: its picture, and a map of which region each pixel belongs to.

The region map is what lets a trainer ask for every attribute patch by patch, and what tells where
the thing that a question asks about lies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from editing_core.heraldry.emblem import PALETTE, Charge, Emblem

CANVAS = 192
# Region labels. A pair's first charge is FIRST_CHARGE, its second SECOND_CHARGE.
OUTSIDE, BORDER, FIELD, SECOND_FIELD, FIRST_CHARGE, SECOND_CHARGE = range(6)

_CENTRE = CANVAS / 2
_EDGE = 3.0
_Point = tuple[float, float]
_Spot = tuple[float, float, float]
"""Centre and radius of one charge."""


def draw_emblem(emblem: Emblem) -> tuple[Image.Image, Image.Image]:
    """The emblem on a transparent canvas (RGBA) and its region map (L), both `CANVAS` square."""
    outline = _outline_polygon(emblem.outline)
    picture, regions = _draw_field(emblem)
    silhouette = Image.new("L", (CANVAS, CANVAS), 0)
    ImageDraw.Draw(silhouette).polygon(outline, fill=255)
    picture.putalpha(silhouette)
    region_array = np.array(regions)
    region_array[np.asarray(silhouette) == 0] = OUTSIDE
    regions = Image.fromarray(region_array)
    pen, region_pen = ImageDraw.Draw(picture), ImageDraw.Draw(regions)
    closed = [*outline, outline[0], outline[1]]
    if emblem.border is not None:
        pen.line(closed, fill=(*PALETTE[emblem.border], 255), width=13, joint="curve")
        region_pen.line(closed, fill=BORDER, width=13, joint="curve")
    pen.line(closed, fill=(30, 30, 30, 255), width=3, joint="curve")
    for label, charge, spots in _charge_spots(emblem):
        colour = PALETTE[charge.colour]
        edge = (24, 24, 24) if sum(colour) > 330 else (244, 244, 244)
        for x, y, radius in spots:
            _draw_shape(picture, charge.shape, (x, y), radius + _EDGE, (*edge, 255), grow=_EDGE)
            _draw_shape(picture, charge.shape, (x, y), radius, (*colour, 255))
            _draw_shape(regions, charge.shape, (x, y), radius + _EDGE, label, grow=_EDGE)
    return picture, regions


def _outline_polygon(outline: str) -> list[_Point]:
    if outline == "flag":
        return [(12, 36), (180, 36), (180, 156), (12, 156)]
    if outline == "banner":
        return [(34, 12), (158, 12), (158, 180), (96, 150), (34, 180)]
    if outline == "pennant":
        return [(10, 26), (182, 68), (182, 124), (10, 166)]
    if outline == "hexagon":
        return [_polar(_CENTRE, _CENTRE, 86, 60 * k) for k in range(6)]
    if outline == "roundel":
        return [_polar(_CENTRE, _CENTRE, 80, 7.5 * k) for k in range(48)]
    if outline == "shield":
        right = [(166 - 70 * t**2.4, 90 + 90 * t) for t in np.linspace(0, 1, 14)]
        left = [(CANVAS - x, y) for x, y in reversed(right[:-1])]
        return [(26, 14), (166, 14), *[(float(x), float(y)) for x, y in (*right, *left)]]
    raise ValueError(f"unknown outline '{outline}'")


# Centre and half extents of the part of each outline that charges may fill.
_SAFE_AREA: dict[str, tuple[float, float, float, float]] = {
    "shield": (96, 84, 62, 58),
    "roundel": (96, 96, 60, 58),
    "flag": (96, 96, 76, 54),
    "banner": (96, 82, 54, 62),
    "hexagon": (96, 96, 64, 60),
    "pennant": (84, 96, 58, 46),
}


def _draw_field(emblem: Emblem) -> tuple[Image.Image, Image.Image]:
    x0, y0, width, height = _SAFE_AREA[emblem.outline]
    rows, columns = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32) + 0.5
    x, y = (columns - x0) / width, (rows - y0) / height
    pattern = emblem.pattern
    if pattern == "plain":
        second = np.zeros((CANVAS, CANVAS), dtype=bool)
    elif pattern == "halved":
        second = x > 0
    elif pattern == "parted":
        second = y > 0
    elif pattern == "quartered":
        second = (x > 0) ^ (y > 0)
    elif pattern == "diagonal":
        second = (columns - x0) + (rows - y0) > 0
    elif pattern == "barred":
        second = np.floor(y * 2.5 + 0.5).astype(int) % 2 == 0
    elif pattern == "striped":
        second = np.floor(x * 2.5 + 0.5).astype(int) % 2 == 0
    elif pattern == "chequered":
        tiles = np.floor((columns - x0) / 26).astype(int) + np.floor((rows - y0) / 26).astype(int)
        second = tiles % 2 == 0
    elif pattern == "crossed":
        second = (np.abs(columns - x0) < 17) | (np.abs(rows - y0) < 17)
    else:
        raise ValueError(f"unknown pattern '{pattern}'")
    colours = np.array(
        [PALETTE[emblem.field_colour], PALETTE[emblem.second_colour or emblem.field_colour]],
        dtype=np.uint8,
    )
    regions = np.where(second, SECOND_FIELD, FIELD).astype(np.uint8)
    return Image.fromarray(colours[second.astype(np.intp)]), Image.fromarray(regions)


_SPOTS: dict[int, tuple[tuple[_Point, ...], float]] = {
    2: (((-0.5, 0.0), (0.5, 0.0)), 0.5),
    3: (((0.0, -0.5), (-0.55, 0.45), (0.55, 0.45)), 0.46),
    4: (((-0.52, -0.52), (0.52, -0.52), (-0.52, 0.52), (0.52, 0.52)), 0.45),
    5: (((-0.62, -0.6), (0.62, -0.6), (0.0, 0.0), (-0.62, 0.6), (0.62, 0.6)), 0.37),
}
_PLACE_OFFSETS: dict[str, _Point] = {
    "centre": (0.0, 0.0),
    "top": (0.0, -0.5),
    "bottom": (0.0, 0.5),
    "left": (-0.55, 0.0),
    "right": (0.55, 0.0),
}


def _charge_spots(emblem: Emblem) -> Iterator[tuple[int, Charge, list[_Spot]]]:
    """`(region label, charge, [(x, y, radius)])` for each charge."""
    x0, y0, width, height = _SAFE_AREA[emblem.outline]
    smaller = min(width, height)
    if emblem.is_pair:
        side_by_side = emblem.place == "side by side"
        offset = (0.52, 0.0) if side_by_side else (0.0, 0.52)
        radius = min(0.47 * (width if side_by_side else height), 0.72 * smaller)
        for label, charge, sign in (
            (FIRST_CHARGE, emblem.charges[0], -1),
            (SECOND_CHARGE, emblem.charges[1], 1),
        ):
            x, y = x0 + sign * offset[0] * width, y0 + sign * offset[1] * height
            yield label, charge, [(x, y, radius)]
        return
    if emblem.count == 1:
        dx, dy = _PLACE_OFFSETS[emblem.place]
        radius = 0.84 * smaller if emblem.place == "centre" else 0.52 * smaller
        yield FIRST_CHARGE, emblem.charges[0], [(x0 + dx * width, y0 + dy * height, radius)]
        return
    points, factor = _SPOTS[emblem.count]
    spots = [(x0 + x * width, y0 + y * height, factor * smaller) for x, y in points]
    yield FIRST_CHARGE, emblem.charges[0], spots


def _polar(x: float, y: float, radius: float, degrees: float) -> _Point:
    angle = math.radians(degrees)
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def _unit_polygons() -> dict[str, list[list[_Point]]]:
    star = [_polar(0, 0.05, 1.05 if k % 2 == 0 else 0.45, 36 * k - 90) for k in range(10)]
    heart_t = [2 * math.pi * k / 40 for k in range(40)]
    heart = [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in heart_t
    ]
    outer = [_polar(0, 0, 1, a) for a in range(50, 311, 10)]
    inner = [_polar(0.42, 0, 0.80, a) for a in range(285, 74, -10)]
    body = [(math.cos(t) * 0.72 - 0.25, math.sin(t) * 0.5) for t in heart_t]
    return {
        "star": [star],
        "square": [[(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)]],
        "triangle": [[(0, -0.98), (1.0, 0.8), (-1.0, 0.8)]],
        "diamond": [[(0, -1.08), (0.72, 0), (0, 1.08), (-0.72, 0)]],
        "cross": [
            [(-0.32, -1), (0.32, -1), (0.32, 1), (-0.32, 1)],
            [(-1, -0.32), (1, -0.32), (1, 0.32), (-1, 0.32)],
        ],
        "crescent": [outer + inner],
        "heart": [heart],
        "arrow": [
            [
                (0, -1.05),
                (0.8, -0.1),
                (0.3, -0.1),
                (0.3, 1.0),
                (-0.3, 1.0),
                (-0.3, -0.1),
                (-0.8, -0.1),
            ]
        ],
        "tree": [
            [(0, -1.08), (0.58, -0.2), (-0.58, -0.2)],
            [(0, -0.6), (0.82, 0.55), (-0.82, 0.55)],
            [(-0.2, 0.5), (0.2, 0.5), (0.2, 1.05), (-0.2, 1.05)],
        ],
        "fish": [body, [(0.3, 0.0), (1.05, -0.6), (1.05, 0.6)]],
        "crown": [
            [(-1, 0.75), (-1, -0.6), (-0.5, 0.05), (0, -0.85), (0.5, 0.05), (1, -0.6), (1, 0.75)]
        ],
        "hourglass": [[(-0.8, -1), (0.8, -1), (0.14, 0), (0.8, 1), (-0.8, 1), (-0.14, 0)]],
    }


_POLYGONS = _unit_polygons()


def _draw_shape(
    image: Image.Image,
    shape: str,
    centre: _Point,
    radius: float,
    fill: int | tuple[int, ...],
    *,
    grow: float = 0.0,
) -> None:
    x, y = centre
    pen = ImageDraw.Draw(image)
    if shape == "disc":
        radius *= 0.92
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif shape == "ring":
        # `grow` widens the band on both sides, so that the edge shows inside the hole as well.
        width = 0.38 * (radius - grow) + 2 * grow
        pen.ellipse(
            (x - radius, y - radius, x + radius, y + radius), outline=fill, width=round(width)
        )
    else:
        for polygon in _POLYGONS[shape]:
            pen.polygon([(x + px * radius, y + py * radius) for px, py in polygon], fill=fill)


def coverage(regions: NDArray[np.uint8], grid: int) -> NDArray[np.uint8]:
    """Pixels of each region in each cell: `uint8 [grid, grid, 6]`; cells of at most 255 pixels."""
    size = regions.shape[0] // grid
    cells = regions.reshape(grid, size, grid, size).transpose(0, 2, 1, 3).reshape(grid, grid, -1)
    counts = [(cells == label).sum(axis=-1) for label in range(SECOND_CHARGE + 1)]
    return np.stack(counts, axis=-1).astype(np.uint8)
