"""From a picture's file to its pixels: upright, 8 bits, RGB, piece by piece.

First frame, orientation applied, 16 bits to 8, CMYK to RGB, alpha laid over white. At most one
whole picture is held, in the decoder's own form. Imports no more than a decoding process should
hold: Pillow and numpy.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from app.image_headers import read_header
from app.image_parts import Parts, Unreadable, parts_of
from editing_core.pixels import flatten

if TYPE_CHECKING:
    from editing_core.types import ImageArray

MAX_PIXELS = 25_000_000
MAX_WEBP_PIXELS = 4096 * 4096
"""Its decoder holds 16 bytes for each: two canvases, a frame and the picture."""

_PIECE_PIXELS = 1_000_000

_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
"""EXIF orientation -> whether rows and columns change places, and which of both are reversed
before: (exchanged, rows reversed, columns reversed)."""

_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(="|>)([0-9])')

logger = logging.getLogger(__name__)


def most_pixels(name: str) -> int:
    """How many pixels a picture of this format may have."""
    return MAX_WEBP_PIXELS if name == "WEBP" else MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Loaded:
    """A picture in the decoder's own form, `height` by `width` once it is upright."""

    height: int
    width: int
    turn: tuple[bool, bool, bool]
    picture: Image.Image

    def pieces(self) -> Iterator[ImageArray]:
        """Its pixels in the order of rows, `uint8 [rows, columns, 3]`, a small part at a time.

        A piece is some whole rows, or a part of one.
        """
        rows = max(1, _PIECE_PIXELS // self.width)
        columns = min(self.width, _PIECE_PIXELS)
        for top in range(0, self.height, rows):
            for left in range(0, self.width, columns):
                bottom, right = min(top + rows, self.height), min(left + columns, self.width)
                yield self._piece(top, bottom, left, right)

    def _piece(self, top: int, bottom: int, left: int, right: int) -> ImageArray:
        is_exchanged, rows_reversed, columns_reversed = self.turn
        rows, columns = ((left, right), (top, bottom)) if is_exchanged else (
            (top, bottom), (left, right)
        )  # fmt: skip
        if rows_reversed:
            rows = self.picture.height - rows[1], self.picture.height - rows[0]
        if columns_reversed:
            columns = self.picture.width - columns[1], self.picture.width - columns[0]
        box = (columns[0], rows[0], columns[1], rows[1])
        pixels = np.asarray(flatten(self.picture.crop(box)))
        pixels = pixels[:: -1 if rows_reversed else 1, :: -1 if columns_reversed else 1]
        return np.ascontiguousarray(pixels.swapaxes(0, 1) if is_exchanged else pixels)


def load(data: bytes) -> Loaded:
    """The decoded picture. Raises `Unreadable` with the reason."""
    header = read_header(data)
    if header is None or header.size is None:
        raise Unreadable("is damaged")
    try:
        parts = parts_of(data, header.format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it mended; it is not our picture
            return _load(parts, header.format)
    except Unreadable:
        raise
    except Exception as error:  # a hostile file can make a decoder raise anything
        logger.debug("a %s could not be decoded", header.format, exc_info=True)
        raise Unreadable("is damaged") from error


def _load(parts: Parts, name: str) -> Loaded:
    picture: Image.Image = Image.open(io.BytesIO(parts.data), formats=(name,))
    if picture.width * picture.height > most_pixels(name):  # a frame larger than its header said
        raise Unreadable("is larger than its header says")
    picture.load()
    turn = _TURNS.get(_orientation(parts), _TURNS[1])
    height, width = picture.height, picture.width
    if turn[0]:
        height, width = width, height
    return Loaded(height, width, turn, picture)


def _orientation(parts: Parts) -> int:
    """The rotation that is written beside the pixels; 1, none, where that cannot be read."""
    if parts.exif:
        try:
            exif = Image.Exif()
            exif.load(parts.exif)
            value = exif.get(ExifTags.Base.Orientation)
        except Exception:
            logger.debug("EXIF could not be read", exc_info=True)
            value = None
        if isinstance(value, int):
            return value
    match = _XMP_ORIENTATION.search(parts.xmp)
    return int(match[2]) if match else 1
