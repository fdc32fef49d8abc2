"""What happens to a picture before the checkpoint's own image processor sees it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from editing_core.types import ImageArray

_GREY = 127
_LONGEST_SIDE = 4096
"""Of a picture that is not square: its square must fit in memory, even around a single line."""


def letterbox(image: ImageArray) -> ImageArray:
    """Centre `image` (`uint8 [height, width, 3]`) on a grey square; nothing is cropped.

    A square image comes back as it is; a longer one than `_LONGEST_SIDE` is scaled down first.
    Raises `ValueError` for another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected uint8 [height, width, 3], got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    if side > _LONGEST_SIDE:
        scale = _LONGEST_SIDE / side
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
        (width, height), side = size, _LONGEST_SIDE
    square = np.full((side, side, 3), _GREY, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def to_pil(image: ImageArray) -> Image.Image:
    """The letterboxed image as the type whose channel order no processor has to guess."""
    return Image.fromarray(np.ascontiguousarray(letterbox(image)))
