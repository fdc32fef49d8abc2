"""What a picture's file is cut down to before it is decoded: the parts that its pixels are made of.

Text, colour profiles, previews and comments are left out, so that no mistake in them spoils the
picture, and nothing is spent on reading them. Every walk is bounded, and so are the passes that a
progressive JPEG asks for. Imports no more than a decoding process should hold.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from app.image_headers import (
    JPEG_BARE_MARKERS,
    JPEG_FILL,
    JPEG_SIZE_MARKERS,
    MAX_SEGMENTS,
    Format,
)

MAX_PARTS = 65_536
"""Chunks of a PNG or WebP, blocks of a GIF before its first frame."""

MAX_SCAN_PIXELS = 800_000_000
"""Each scan of a progressive JPEG is a pass over all of its pixels; usual ones have ten."""

_MAX_TEXT = 1024 * 1024

_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_XMP_OF_JPEG = b"http://ns.adobe.com/xap/1.0/\0"


class Unreadable(Exception):
    """No picture comes out of these bytes. The message ends the sentence "The PNG ..."."""


@dataclass(slots=True)
class Parts:
    """`data` decodes to the same pixels as the whole file; `exif` and `xmp` may name a rotation."""

    data: bytes
    exif: bytes = b""
    xmp: bytes = b""


def parts_of(data: bytes, kind: Format) -> Parts:
    """The parts of a whole file. Raises `Unreadable` when it is broken, or walked for too long."""
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError) as error:  # it ends inside one of its own parts
        raise Unreadable("is cut short") from error


def _png(data: bytes) -> Parts:
    """Chunk by chunk. What is cut off or misnamed ends the walk; the decoder says if it matters."""
    kept, pixels = [data[:8]], list[bytes]()
    parts = Parts(b"")
    position = 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + length]
        if not kind.isalpha() or (len(body) < length and kind != b"IDAT"):
            break
        if kind == b"IDAT":
            pixels.append(body)
        elif kind == b"tRNS":
            kept.append(_png_chunk(kind, _transparent(body, depth=data[24], colour=data[25])))
        elif kind in _PNG_PIXELS:
            kept.append(data[position : position + 12 + length])
        else:
            _note_png(parts, kind, body)
        if kind == b"IEND":
            break
        position += 12 + length
    else:
        raise Unreadable(f"has more than {MAX_PARTS:,} chunks")
    end = [kept.pop()] if kept[-1][4:8] == b"IEND" else []
    parts.data = b"".join([*kept, _png_chunk(b"IDAT", b"".join(pixels)), *end])
    return parts


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def _transparent(body: bytes, *, depth: int, colour: int) -> bytes:
    """A transparent grey or colour in the 8 bits to which its pixels are decoded.

    The decoder stretches grey of 2 and 4 bits, and cuts 16 bits of a colour, but not these.
    """
    values = struct.unpack(f">{len(body) // 2}H", body[: len(body) // 2 * 2])
    if colour == 0 and depth in (2, 4):
        values = tuple(min(255, value * 255 // (2**depth - 1)) for value in values)
    elif colour == 2 and depth == 16:
        values = tuple(value >> 8 for value in values)
    else:
        return body
    return struct.pack(f">{len(values)}H", *values)


def _note_png(parts: Parts, kind: bytes, body: bytes) -> None:
    if kind == b"eXIf":
        parts.exif = body
        return
    keyword, _, rest = body.partition(b"\0")
    if keyword == b"XML:com.adobe.xmp" and kind == b"iTXt" and len(rest) > 2:
        is_packed = rest[0] == 1
        text = rest[2:].split(b"\0", 2)[-1]  # after language and translated keyword
        parts.xmp = _inflated(text) if is_packed else text[:_MAX_TEXT]
    elif keyword == b"Raw profile type exif" and kind in (b"tEXt", b"zTXt") and not parts.exif:
        text = _inflated(rest[1:]) if kind == b"zTXt" else rest[:_MAX_TEXT]
        digits = b"".join(text.split(b"\n")[3:])
        try:
            parts.exif = bytes.fromhex(digits.decode("ascii"))
        except ValueError:
            parts.exif = b""


def _inflated(packed: bytes) -> bytes:
    """As much of a text as may matter; none of it when it is damaged."""
    try:
        return zlib.decompressobj().decompress(packed, _MAX_TEXT)
    except zlib.error:
        return b""


def _jpeg(data: bytes) -> Parts:
    """Segment by segment to the end marker."""
    kept, parts = [data[:2]], Parts(b"")
    position, pixels, scans = 2, 0, 0
    for _ in range(MAX_SEGMENTS):
        fill = JPEG_FILL.match(data, position)
        if fill is None:
            raise Unreadable("is cut short" if position >= len(data) else "is damaged")
        begin, marker = fill.end() - 1, data[fill.end()]
        position = fill.end() + 1
        if marker == 0xD9:
            parts.data = b"".join([*kept, b"\xff\xd9"])
            return parts
        if marker in JPEG_BARE_MARKERS:
            continue
        end = position + struct.unpack_from(">H", data, position)[0]
        if marker == 0xDA:
            scans += 1
            if scans * pixels > MAX_SCAN_PIXELS:
                raise Unreadable(f"asks for more than {MAX_SCAN_PIXELS // pixels} passes over it")
            if (stop := _SCAN_END.search(data, end)) is None:
                raise Unreadable("is cut short: its end marker is missing")
            end = stop.start()
        elif marker in JPEG_SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 3)
            pixels = max(1, width * height)
        elif _is_about(parts, marker, data[position + 2 : end]):
            position = end
            continue
        kept.append(data[begin:end])
        position = end
    raise Unreadable(f"has more than {MAX_SEGMENTS:,} segments")


def _is_about(parts: Parts, marker: int, body: bytes) -> bool:
    """Whether a segment tells about the picture and is no part of it; what may matter is noted."""
    if marker == 0xE1 and body.startswith(b"Exif\0\0"):
        parts.exif += body[6:]
    elif marker == 0xE1 and body.startswith(_XMP_OF_JPEG):
        parts.xmp = body[len(_XMP_OF_JPEG) :]
    # JFIF's and Adobe's segments say how colours are written.
    is_colour = (marker == 0xE0 and body[:4] == b"JFIF") or (
        marker == 0xEE and body[:5] == b"Adobe"
    )
    return marker == 0xFE or (0xE0 <= marker <= 0xEF and not is_colour)


def _gif(data: bytes) -> Parts:
    """Up to the first frame, with the one extension that bears on it. The rest is not walked."""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    kept, control = [data[:position]], b""
    parts_left = MAX_PARTS
    while data[position] == 0x21:
        begin, label = position, data[position + 1]
        position += 2
        while data[position]:
            position += 1 + data[position]
            parts_left -= 1
        position += 1
        parts_left -= 1
        if parts_left < 0:
            raise Unreadable(f"has more than {MAX_PARTS:,} blocks before its first frame")
        if label == 0xF9:
            control = data[begin:position]
    return Parts(b"".join([*kept, control, data[position:]]))


def _webp(data: bytes) -> Parts:
    """As it is: its decoder reads nothing that it need not. The number of chunks is bounded."""
    parts = Parts(data)
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return parts
        kind, length = struct.unpack_from("<4sI", data, position)
        body = slice(position + 8, position + 8 + length)
        if kind == b"EXIF":
            parts.exif = data[body]
        elif kind == b"XMP ":
            parts.xmp = data[body]
        position += 8 + length + length % 2
    raise Unreadable(f"has more than {MAX_PARTS:,} chunks")


_READERS = {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "WEBP": _webp}
