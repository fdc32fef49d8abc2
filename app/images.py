"""Pictures from requests: read under limits, decoded one way for edits and queries alike.

First frame, orientation applied, 16 bits to 8, CMYK to RGB, alpha laid over white. The digest is
over the resulting pixels, so a lossless re-encoding is the same picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from app.errors import (
    ImageBase64Invalid,
    ImageFormatUnsupported,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUndecodable,
    RemoteImagesDisabled,
)
from app.image_headers import read_header
from editing_core.identity import image_digest
from editing_core.pixels import flatten
from editing_core.types import ImageArray

MAX_BYTES = 10 * 1024 * 1024
MAX_PIXELS = 25_000_000
PIXELS_AT_ONCE = 4 * MAX_PIXELS
"""Decoded pixels that all running requests together may hold (3 bytes each)."""

_STRIP_PIXELS = 1_000_000

_DATA_URI = re.compile(r"data:[^,]*,", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels` uint8 `[height, width, 3]`, read-only, and their digest."""

    pixels: ImageArray
    digest: str


class ImageDecoder:
    """A bounded pool of decoders, and a bound on the pixels held by everybody together."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._budget = _PixelBudget(PIXELS_AT_ONCE)

    @asynccontextmanager
    async def open(self, field: str) -> AsyncIterator[DecodedImage]:
        """The picture a request field holds; its pixels count as held until the block ends."""
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._pool, read_field, field)
        width, height = check_size(data)
        async with self._budget.hold(width * height):
            yield await loop.run_in_executor(self._pool, decode, data)

    @asynccontextmanager
    async def reopen(self, png: bytes) -> AsyncIterator[ImageArray]:
        """The pixels of a picture that was stored by us, which count as held as well."""
        width, height = check_size(png)
        async with self._budget.hold(width * height):
            yield await asyncio.get_running_loop().run_in_executor(self._pool, decode_png, png)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def read_field(field: str) -> bytes:
    """The bytes of a data URI or of bare base64. Raises on anything remote or malformed."""
    if (prefix := _DATA_URI.match(field)) is not None:
        if not prefix.group().lower().endswith(";base64,"):
            raise ImageBase64Invalid("The data URI is not base64.", param="image")
        encoded = field[prefix.end() :]
    elif _SCHEME.match(field) and field[:5].lower() != "data:":
        raise RemoteImagesDisabled("Pictures are not fetched from addresses.", param="image")
    else:
        encoded = field
    if len(encoded) * 3 // 4 > MAX_BYTES + 2:
        raise _too_large()
    try:
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:
        raise ImageBase64Invalid(f"The picture is not base64: {error}.", param="image") from error
    if not data:
        raise ImageBase64Invalid("The picture is empty.", param="image")
    if len(data) > MAX_BYTES:
        raise _too_large()
    return data


def check_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header; refuses what is no picture, or too many pixels."""
    header = read_header(data)
    if header is None:
        raise ImageFormatUnsupported("The bytes are no PNG, JPEG, WebP or GIF.", param="image")
    if header.size is None or 0 in header.size:
        raise _undecodable(header.format)
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageTooManyPixels(
            f"The picture has {width}x{height} pixels; the limit is {MAX_PIXELS:,}.", param="image"
        )
    return width, height


def decode(data: bytes) -> DecodedImage:
    """Pixels and digest of a picture whose header was checked. Raises `ImageUndecodable`."""
    header = read_header(data)
    name = header.format if header else "picture"
    try:
        pixels = _decode(data, name)
    except Exception as error:  # a hostile file can make a decoder raise anything
        logger.debug("a %s could not be decoded", name, exc_info=True)
        raise _undecodable(name) from error
    return DecodedImage(pixels, image_digest(pixels))


def encode_png(pixels: ImageArray) -> bytes:
    """What is stored: the pixels and nothing else, no metadata."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def decode_png(data: bytes) -> ImageArray:
    """The inverse of `encode_png`, for bytes that were stored by us."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def data_uri(data: bytes, *, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _decode(data: bytes, name: str) -> ImageArray:
    """Pixels, upright. At most one whole picture is held beside the result."""
    with Image.open(io.BytesIO(data), formats=(name,)) as picture:
        if picture.width * picture.height > MAX_PIXELS:  # a frame larger than its header said
            raise ValueError("the frame is larger than the header says")
        picture.load()
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
        for left, top, right, bottom in _strips(picture.width, picture.height):
            strip = picture.crop((left, top, right, bottom))
            pixels[top:bottom, left:right] = np.asarray(flatten(strip))
    upright = np.ascontiguousarray(_UPRIGHT.get(orientation, _as_it_is)(pixels))
    upright.flags.writeable = False
    return upright


def _strips(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover a picture, each small enough to copy a few times."""
    if width > height:
        step = max(1, _STRIP_PIXELS // height)
        for left in range(0, width, step):
            yield left, 0, min(left + step, width), height
    else:
        step = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, step):
            yield 0, top, width, min(top + step, height)


def _as_it_is(pixels: ImageArray) -> ImageArray:
    return pixels


_UPRIGHT: dict[int, Callable[[ImageArray], ImageArray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""EXIF orientation -> how the stored pixels are turned upright."""


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(f"The picture is larger than {MAX_BYTES // 2**20} MiB.", param="image")


def _undecodable(name: str) -> ImageUndecodable:
    return ImageUndecodable(f"The {name} is damaged.", param="image")


class _PixelBudget:
    """A counting semaphore in pixels. Whoever came first is served first, so none starves."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        async with self._turn:
            while self._free < pixels:
                self._released.clear()
                await self._released.wait()
            self._free -= pixels
        try:
            yield
        finally:
            self._free += pixels
            self._released.set()
