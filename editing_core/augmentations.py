"""Other views of a picture, as someone might have taken it again: turned, moved, lit differently.

Whole pictures stay whole: nothing beside a narrow margin is lost, whatever the picture's shape.
What a change uncovers is filled with the picture's own edge, or with another ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from editing_core.types import ImageArray

_ROOM = 0.6


@dataclass(frozen=True, slots=True)
class Strength:
    """The most that each change may amount to.

    `turn` in degrees; `scale` and `shift` as shares of the picture; `light` of brightness and
    contrast; `blur` a radius as a share of the longer side. By default that is all. `away`, if
    less than 1, is the least size of a picture taken from further off, before another ground;
    `shear` a slant; `cast` a share of each colour; `grain` in levels.
    """

    turn: float = 8.0
    scale: float = 0.12
    shift: float = 0.06
    light: float = 0.2
    blur: float = 0.006
    away: float = 1.0
    shear: float = 0.0
    cast: float = 0.0
    grain: float = 0.0


def augmented(
    image: ImageArray, rng: np.random.Generator, *, strength: Strength = Strength()
) -> ImageArray:
    """Another view of `image` (`uint8 [height, width, 3]`), of the same size."""
    height, width = image.shape[:2]
    angle = math.radians(rng.uniform(-strength.turn, strength.turn))
    zoom = 1.0 + rng.uniform(-strength.scale, strength.scale)
    shift = strength.shift
    if strength.away < 1.0:
        zoom *= math.exp(rng.uniform(math.log(strength.away), 0.0))
        # What has become smaller may stand further from the middle.
        shift += _ROOM * max(1.0 - zoom, 0.0)
    right, down = rng.uniform(-shift, shift, 2) * (width, height)
    slant = rng.uniform(-strength.shear, strength.shear) if strength.shear else 0.0
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    across, along = (cos, sin + slant * cos), (-sin, cos - slant * sin)
    middle_x, middle_y = width / 2, height / 2
    from_x, from_y = middle_x + right, middle_y + down
    # Edge pixels are repeated outwards, so that no corner turns black.
    margin = math.ceil(0.5 * max(height, width)) + 1
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    place = (
        *(*across, margin + middle_x - across[0] * from_x - across[1] * from_y),
        *(*along, margin + middle_y - along[0] * from_x - along[1] * from_y),
    )

    def placed(picture: Image.Image) -> Image.Image:
        size = (width, height)
        return picture.transform(size, Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)

    picture = placed(Image.fromarray(padded))
    if strength.away < 1.0:
        whole = np.pad(np.full((height, width), 255, np.uint8), margin)
        picture = Image.composite(
            picture, _ground(rng, height, width), placed(Image.fromarray(whole))
        )
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        factor = 1.0 + rng.uniform(-strength.light, strength.light)
        picture = change(picture).enhance(factor)
    radius = float(rng.uniform(0.0, strength.blur)) * max(height, width)
    found = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))
    if strength.cast or strength.grain:
        light = 1.0 + rng.uniform(-strength.cast, strength.cast, 3)
        grain = rng.normal(0.0, rng.uniform(0.0, strength.grain), found.shape)
        found = np.clip(found * light + grain, 0, 255).astype(np.uint8)
    return found


def shrunk(image: ImageArray, side: int) -> ImageArray:
    """`image` at no more than `side` pixels along its longer side; the same one if it has fewer."""
    if max(image.shape[:2]) <= side:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def _ground(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A few colours that run into each other."""
    patches = int(rng.integers(1, 5))
    colours = rng.integers(0, 256, (patches, patches, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
