"""Pictures of no world that the embedded CLIP was trained on."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from editing_core.types import ImageArray


def strange_picture(seed: int) -> ImageArray:
    """Sticks and dots of many colours on white, `uint8 [120, 160, 3]`."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (160, 120), "white")
    pen = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y = int(rng.integers(0, 160)), int(rng.integers(0, 120))
        ink = tuple(rng.integers(0, 200, 3).tolist())
        wide, high = rng.integers(4, 40, 2).tolist()
        if rng.random() < 0.5:
            pen.ellipse((x, y, x + wide, y + high), ink)
        else:
            pen.line((x, y, x + wide, y + high), ink, width=int(rng.integers(1, 6)))
    return np.asarray(picture)


def repainted(image: ImageArray) -> ImageArray:
    """The same drawing, on white as well, in other colours."""
    return np.roll(image, 1, axis=-1)


def with_a_sign(image: ImageArray) -> ImageArray:
    """The same drawing with a black ring in it."""
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).ellipse((56, 36, 104, 84), None, (0, 0, 0), 9)
    return np.asarray(picture)
