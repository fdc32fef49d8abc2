"""Pictures from requests: read under limits, decoded one way for edits and queries alike.

How is in `app/decoding.py`, and it happens in processes of its own. The digest is over the
resulting pixels, so a lossless re-encoding is the same picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import queue
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.decode_process import DecodeProcess, DecoderFailed
from app.decoding import MAX_PIXELS, load
from app.errors import (
    ImageBase64Invalid,
    ImageFormatUnsupported,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUndecodable,
    InternalError,
    RemoteImagesDisabled,
    TooManyImages,
)
from app.image_headers import read_header
from app.image_parts import Unreadable
from editing_core.identity import image_digest
from editing_core.types import ImageArray

MAX_BYTES = 10 * 1024 * 1024
MAX_PICTURES = 16
"""In one request."""

MAX_TOGETHER = 2 * MAX_PIXELS
"""Decoded pixels of one request that has several."""

PIXELS_AT_ONCE = 4 * MAX_PIXELS
"""Decoded pixels that all running requests together may hold (3 bytes each)."""

_DATA_URI = re.compile(r"data:(?!data:)[^,]*,", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels` uint8 `[height, width, 3]`, read-only, and their digest."""

    pixels: ImageArray
    digest: str


class ImageDecoder:
    """Some processes that decode, and a bound on the pixels held by everybody together.

    Lives on the event loop's thread. A picture may take `limit_s` of computing time.
    """

    def __init__(self, workers: int, *, limit_s: float = 5.0) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._all = [DecodeProcess(limit_s=limit_s) for _ in range(workers)]
        self._idle: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        for process in self._all:
            self._idle.put(process)
        self._budget = _PixelBudget(PIXELS_AT_ONCE)

    @asynccontextmanager
    async def open(self, field: str) -> AsyncIterator[DecodedImage]:
        """The picture a request field holds; its pixels count as held until the block ends."""
        async with self.open_all([field]) as (image,):
            yield image

    @asynccontextmanager
    async def open_all(self, fields: Sequence[str]) -> AsyncIterator[list[DecodedImage]]:
        """Those of one request, in order. They are held all at once or not at all."""
        if len(fields) > MAX_PICTURES:
            raise TooManyImages(
                f"The request has {len(fields)} pictures; the limit is {MAX_PICTURES}.",
                param="image",
            )
        read = [await asyncio.wrap_future(self._pool.submit(_read, field)) for field in fields]
        pixels = sum(width * height for _, (width, height) in read)
        if len(read) > 1 and pixels > MAX_TOGETHER:
            raise ImageTooManyPixels(
                f"The pictures have {pixels:,} pixels together; the limit is {MAX_TOGETHER:,}.",
                param="image",
            )
        async with self._held(pixels, [data for data, _ in read]) as images:
            yield images

    @asynccontextmanager
    async def reopen(self, png: bytes) -> AsyncIterator[ImageArray]:
        """The pixels of a picture that was stored by us, which count as held as well."""
        width, height = check_size(png)
        async with self._held(width * height, [png]) as (image,):
            yield image.pixels

    async def restore(self, png: bytes) -> ImageArray:
        """The same, for callers that bound by themselves how much they hold (`app/neighbours.py`).

        Waiting for a share of what all requests hold, they could wait for one another.
        """
        return (await asyncio.wrap_future(self._pool.submit(self._decode, png))).pixels

    @asynccontextmanager
    async def _held(self, pixels: int, files: Sequence[bytes]) -> AsyncIterator[list[DecodedImage]]:
        if not files:
            yield []
            return
        await self._budget.take(pixels)
        running = self._pool.submit(lambda: [self._decode(data) for data in files])
        try:
            yield await asyncio.wrap_future(running)
        finally:
            # Whoever went away leaves a thread at work, and what it fills counts as long as it is.
            if running.done():
                self._budget.give(pixels)
            else:
                loop = asyncio.get_running_loop()
                running.add_done_callback(
                    lambda _: loop.call_soon_threadsafe(self._budget.give, pixels)
                )

    def _decode(self, data: bytes) -> DecodedImage:
        process = self._idle.get()
        try:
            pixels = process.decode(data)
        except Unreadable as error:
            raise _undecodable(data, error) from error
        except (DecoderFailed, OSError) as error:
            raise InternalError("Pictures cannot be decoded now.") from error
        finally:
            self._idle.put(process)
        return _finished(pixels)

    def close(self) -> None:
        """Stop, whatever is being decoded. Blocks for a moment."""
        for process in self._all:
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for process in self._all:
            process.close()


def _read(field: str) -> tuple[bytes, tuple[int, int]]:
    data = read_field(field)
    return data, check_size(data)


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
        raise _undecodable(data, Unreadable("is damaged"))
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageTooManyPixels(
            f"The picture has {width}x{height} pixels; the limit is {MAX_PIXELS:,}.", param="image"
        )
    return width, height


def decode(data: bytes) -> DecodedImage:
    """Pixels and digest of a picture whose header was checked, decoded in this very process.

    For one's own pictures; strangers' belong to `ImageDecoder`. Raises `ImageUndecodable`.
    """
    try:
        loaded = load(data)
    except Unreadable as error:
        raise _undecodable(data, error) from error
    flat = np.concatenate([piece.reshape(-1) for piece in loaded.pieces()])
    return _finished(flat.reshape(loaded.height, loaded.width, 3))


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


def _finished(pixels: ImageArray) -> DecodedImage:
    pixels.flags.writeable = False
    return DecodedImage(pixels, image_digest(pixels))


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(f"The picture is larger than {MAX_BYTES // 2**20} MiB.", param="image")


def _undecodable(data: bytes, error: Unreadable) -> ImageUndecodable:
    header = read_header(data)
    name = header.format if header else "picture"
    return ImageUndecodable(f"The {name} {error}.", param="image")


class _PixelBudget:
    """A counting semaphore in pixels. Whoever came first is served first, so none starves."""

    def __init__(self, pixels: int) -> None:
        self._free = pixels
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    async def take(self, pixels: int) -> None:
        async with self._turn:
            while self._free < pixels:
                self._released.clear()
                await self._released.wait()
            self._free -= pixels

    def give(self, pixels: int) -> None:
        self._free += pixels
        self._released.set()
