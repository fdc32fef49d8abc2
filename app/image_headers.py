"""Format and size of a picture, read from its first bytes without decoding anything.

The size decides whether the picture is decoded at all, so it must not come from the decoder.
"""

from __future__ import annotations

import re
import struct
from typing import Literal, NamedTuple

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]

MAX_SEGMENTS = 4096
"""Segments of a JPEG that are walked in search of its size. Real ones have some dozens, and those
with a large preview or colour profile some hundreds."""

JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})
JPEG_FILL = re.compile(rb"\xff+")
"""What stands before a marker's number: one byte, or as many as the writer liked."""


class Header(NamedTuple):
    """`size` is (width, height); None when the header is broken."""

    format: Format
    size: tuple[int, int] | None


def read_header(data: bytes) -> Header | None:
    """What `data` says it is, by content; None for anything but PNG, JPEG, WebP and GIF."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return Header("PNG", _png_size(data))
        if data.startswith(b"\xff\xd8\xff"):
            return Header("JPEG", _jpeg_size(data))
        if data.startswith((b"GIF87a", b"GIF89a")):
            return Header("GIF", struct.unpack_from("<HH", data, 6))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return Header("WEBP", _webp_size(data))
    except struct.error:  # shorter than its own header
        return Header(_FORMAT_OF_FIRST_BYTE[data[0]], None)
    return None


_FORMAT_OF_FIRST_BYTE: dict[int, Format] = {0x89: "PNG", 0xFF: "JPEG", 0x47: "GIF", 0x52: "WEBP"}


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The first frame header. Walks the segments, since previews may sit in front of it."""
    position = 2
    for _ in range(MAX_SEGMENTS):
        fill = JPEG_FILL.match(data, position)
        if fill is None or fill.end() == len(data):
            return None
        marker, position = data[fill.end()], fill.end() + 1
        if marker in JPEG_BARE_MARKERS:
            continue
        if marker in JPEG_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 3)
            return width, height
        position += int(struct.unpack_from(">H", data, position)[0])
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        fields = struct.unpack_from("<HBHB", data, 24)
        return 1 + (fields[0] | fields[1] << 16), 1 + (fields[2] | fields[3] << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
