"""Small files that cost much, or lie, or are only odd: what a server must answer in words.

Each is made in memory, so that no test depends on a folder of files.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

Segment = bytes


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png_of(*extra: bytes, size: int = 8, pieces: int = 1) -> bytes:
    """A red square with `extra` chunks before its pixels, those in `pieces` chunks."""
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    packed = zlib.compress((b"\0" + b"\xc8\x1e\x1e" * size) * size, 0)
    step = -(-len(packed) // pieces)
    pixels = [chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step)]
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(extra) + b"".join(pixels) + chunk(b"IEND", b"")


def segment(marker: int, body: bytes = b"") -> Segment:
    """One segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_of(*extra: Segment) -> bytes:
    """A green square with `extra` segments before everything else."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 9)).save(buffer, "JPEG")
    return b"\xff\xd8" + b"".join(extra) + buffer.getvalue()[2:]


def scan_bomb(side: int, scans: int) -> bytes:
    """A grey progressive JPEG that is passed over `scans` times: 42 bytes for each."""
    blocks = ((side + 7) // 8) ** 2
    frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
    tables = (segment(0xC4, bytes([kind, 1]) + bytes(15) + bytes([code]))
              for kind, code in ((0x00, 0), (0x10, 0xE0)))  # fmt: skip
    head = segment(0xDB, b"\0" + b"\x10" * 64) + segment(0xC2, frame) + b"".join(tables)
    first = segment(0xDA, b"\1\1\0\0\0\0") + _bits("0" * blocks)
    return (
        b"\xff\xd8" + head + first + _pass(blocks, 0x01) + _pass(blocks, 0x10) * scans + b"\xff\xd9"
    )


def _pass(blocks: int, approximation: int) -> bytes:
    """One refinement of nothing: runs of blocks in which nothing is."""
    bits = ""
    while blocks > 0:
        run = min(blocks, 32767)
        bits += "0" + format(max(run - 16384, 0), "014b")
        blocks = blocks - run if run >= 16384 else 0
    return segment(0xDA, b"\1\1\0" + bytes([1, 63, approximation])) + _bits(bits)


def _bits(text: str) -> bytes:
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def gif_of(*extra: bytes) -> bytes:
    """A black square with `extra` blocks before its frame."""
    buffer = io.BytesIO()
    Image.new("P", (16, 16)).save(buffer, "GIF")
    data = buffer.getvalue()
    frame = data.find(b"\x2c")
    return data[:frame] + b"".join(extra) + data[frame:]


def costly(size: int = 10 * 1024 * 1024 - 256) -> dict[str, bytes]:
    """Files of at most `size` bytes; a reader that trusts them works for seconds or minutes."""
    return {
        "scans_400.jpg": scan_bomb(5000, 400),
        "scans_3000.jpg": scan_bomb(5000, 3000),
        "fill.jpg": b"\xff\xd8" + b"\xff" * (size - 2),
        "bare_markers.jpg": b"\xff\xd8" + b"\xff\xd0" * (size // 2 - 1),
        "segments.jpg": jpeg_of(segment(0xE5) * (size // 4 - 300)),
        "comments.jpg": jpeg_of(segment(0xFE) * (size // 4 - 300)),
        "texts.png": png_of(chunk(b"tEXt", b"a\0b") * (size // 16)),
        "unknown.png": png_of(chunk(b"aaAa", b"") * (size // 13)),
        "tiny_pieces.png": png_of(size=500, pieces=min(750_000, size // 14)),
        "comments.gif": gif_of(b"\x21\xfe\1A\0" * (size // 6)),
        "extensions.gif": gif_of(b"\x21\xff\1A\0" * (size // 6)),
    }


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Pictures spoilt in every way: cut, flipped, with lying sizes, odd modes, huge metadata."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(_sound(chance))
        for _ in range(chance.randrange(1, 4)):
            _spoil(data, chance)
        yield bytes(data)


_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK")
_KINDS = {"PNG": _MODES[:7], "JPEG": ("RGB", "L", "CMYK"), "WEBP": _MODES[:2], "GIF": ("P", "L")}


def _sound(chance: random.Random) -> bytes:
    kind = chance.choice(list(_KINDS))
    width, height = chance.randrange(1, 300), chance.randrange(1, 300)
    raw = Image.frombytes("L", (width, height), chance.randbytes(width * height))
    buffer = io.BytesIO()
    raw.convert("RGB").convert(chance.choice(_KINDS[kind])).save(buffer, kind)
    return buffer.getvalue()


def _spoil(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    match chance.randrange(5):
        case 0:
            del data[max(1, at) :]
        case 1:
            for _ in range(chance.randrange(1, 40)):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        case 2:  # where sizes are written
            place = chance.randrange(min(32, len(data)))
            data[place : place + 4] = chance.randbytes(4)
        case 3:
            data[at:at] = chance.randbytes(chance.randrange(1, 2000))
        case _:
            data[min(33, len(data)) : min(33, len(data))] = chunk(b"tEXt", bytes(200_000))
