"""Other views of a picture, as someone might have taken it again: turned, moved, lit differently.

Whole pictures stay whole: what a change uncovers is filled with the picture's own edge, and nothing
beside a narrow margin is lost, whatever the picture's shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from editing_core.types import ImageArray


@dataclass(frozen=True, slots=True)
class Strength:
    """The most that each change may amount to.

    `turn` in degrees; `scale` and `shift` as shares of the picture; `light` of brightness and
    contrast; `blur` a radius as a share of the longer side.
    """

    turn: float = 8.0
    scale: float = 0.12
    shift: float = 0.06
    light: float = 0.2
    blur: float = 0.006


def augmented(
    image: ImageArray, rng: np.random.Generator, *, strength: Strength = Strength()
) -> ImageArray:
    """Another view of `image` (`uint8 [height, width, 3]`), of the same size."""
    height, width = image.shape[:2]
    angle = math.radians(rng.uniform(-strength.turn, strength.turn))
    zoom = 1.0 + rng.uniform(-strength.scale, strength.scale)
    right, down = rng.uniform(-strength.shift, strength.shift, 2) * (width, height)
    # Edge pixels are repeated outwards, so that no corner turns black.
    margin = math.ceil(0.5 * max(height, width)) + 1
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    middle_x, middle_y = width / 2, height / 2
    from_x, from_y = middle_x + right, middle_y + down
    across = (cos, sin, margin + middle_x - cos * from_x - sin * from_y)
    along = (-sin, cos, margin + middle_y + sin * from_x - cos * from_y)
    picture = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, (*across, *along), Image.Resampling.BILINEAR
    )
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        factor = 1.0 + rng.uniform(-strength.light, strength.light)
        picture = change(picture).enhance(factor)
    radius = float(rng.uniform(0.0, strength.blur)) * max(height, width)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))
