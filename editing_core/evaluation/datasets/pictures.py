"""A picture file as pixels: the same limits, and the same pixels, as a picture sent to the service.

First frame, EXIF orientation applied, 16 bits to 8, CMYK to RGB, transparency laid over white.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from editing_core.pixels import flatten
from editing_core.types import ImageArray

MAX_BYTES = 10 * 1024 * 1024
MAX_PIXELS = 25_000_000
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


class PictureError(ValueError):
    """A file that is no picture, is damaged, or is over a limit. Says which, without the path."""


def read_picture(path: Path) -> ImageArray:
    """Decode a file to uint8 `[height, width, 3]`, read-only. Raises `PictureError`."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise PictureError(f"cannot be read ({error.strerror})") from error
    if size > MAX_BYTES:
        raise PictureError(f"has {size:,} bytes; the limit is {MAX_BYTES:,}")
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a picture that is merely very large; the header decides here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            pixels = _decode(path)
    except PictureError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise PictureError(f"is no readable PNG, JPEG, WebP or GIF ({error})") from error
    pixels.flags.writeable = False
    return pixels


def _decode(path: Path) -> ImageArray:
    with Image.open(path, formats=_FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise PictureError(
                f"has {picture.width}x{picture.height} pixels; the limit is {MAX_PIXELS:,}"
            )
        picture.load()
        return np.array(flatten(ImageOps.exif_transpose(picture)), dtype=np.uint8)
