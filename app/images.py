"""Pictures from requests: read under limits, decoded one way for edits and queries alike.

How is in `app/decoding.py`, and it happens in processes of its own. The digest is over the
resulting pixels, so a lossless re-encoding is the same picture.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
import queue
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from app.decode_process import DecodeProcess, DecoderFailed
from app.decoding import MAX_PIXELS, MAX_WEBP_PIXELS, load, most_pixels
from app.errors import (
    ImageBase64Invalid,
    ImageFormatUnsupported,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUndecodable,
    InternalError,
    RemoteImagesDisabled,
    StoreDamaged,
    TooLarge,
    TooManyImages,
    Unprocessable,
    WrongType,
)
from app.image_headers import read_header
from app.image_parts import Unreadable
from app.memory import trim
from editing_core.identity import image_digest
from editing_core.types import ImageArray

MAX_BYTES = 10 * 1024 * 1024
MAX_PICTURES = 16
"""In one request."""

MAX_TOGETHER = 2 * MAX_PIXELS
"""Decoded pixels of one request that has several."""

PIXELS_AT_ONCE = 4 * MAX_PIXELS
"""Decoded pixels that all running requests together may hold (3 bytes each)."""

SMALL_PIXELS = 1_000_000
SMALL_BYTES = 512 * 1024

WEBP_PIXELS_AT_ONCE = MAX_WEBP_PIXELS
"""Pixels of WebP files that are being decoded."""

REST_S = 20.0
"""After so long without a large picture, the processes that decoded some end, and what is free here
goes back to the system. The next one waits a quarter of a second for a process."""

_PIECE = 256 * 1024
"""Of base64, a multiple of four characters."""

_RESTORE = "Restore the database from a backup, or make the edit again."
_DATA_URI = re.compile(r"data:(?!data:)[^,]*,", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels` uint8 `[height, width, 3]`, read-only, and their digest."""

    pixels: ImageArray
    digest: str


class ImageDecoder:
    """Some processes that decode, and a bound on the pixels held by everybody together.

    Lives on the event loop's thread. A picture may take `limit_s` of computing time. Small ones
    have a process of their own, so that none of them waits for those that cost much.
    """

    def __init__(self, workers: int, *, limit_s: float = 5.0) -> None:
        self._large = _Lane(workers, limit_s=limit_s)
        self._small = _Lane(1, limit_s=limit_s)
        self._budget = _PixelBudget(PIXELS_AT_ONCE)
        self._webp_budget = _PixelBudget(WEBP_PIXELS_AT_ONCE)
        self._rest: asyncio.TimerHandle | None = None

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
        read = [await self._read(field) for field in fields]
        pixels = sum(width * height for _, (width, height) in read)
        if len(read) > 1 and pixels > MAX_TOGETHER:
            raise ImageTooManyPixels(
                f"The pictures have {pixels:,} pixels together; the limit is {MAX_TOGETHER:,}.",
                param="image",
            )
        async with self._held(pixels, [data for data, _ in read]) as images:
            yield images

    @asynccontextmanager
    async def reopen(self, png: bytes, digest: str) -> AsyncIterator[ImageArray]:
        """The pixels of a picture that was stored by us, which count as held as well.

        Raises `StoreDamaged` where they are not those of `digest`.
        """
        async with AsyncExitStack() as stack:
            with _stored(digest) as same:
                width, height = check_size(png)
                held = self._held(width * height, [png])
                (image,) = await stack.enter_async_context(held)
                image = same(image)
            yield image.pixels

    async def restore(self, png: bytes, digest: str) -> ImageArray:
        """The same, for callers that bound by themselves how much they hold (`app/neighbours.py`).

        Waiting for a share of what all requests hold, they could wait for one another.
        """
        with _stored(digest) as same:
            (image,) = await asyncio.wrap_future(self._decode_large([png]))
            return same(image).pixels

    @asynccontextmanager
    async def _held(self, pixels: int, files: Sequence[bytes]) -> AsyncIterator[list[DecodedImage]]:
        if not files:
            yield []
            return
        await self._budget.take(pixels)
        running: Future[list[DecodedImage]] | None = None
        try:
            running = await self._begin(files)
            yield await asyncio.wrap_future(running)
        finally:
            # Whoever went away leaves a thread at work, and what it fills counts as long as it is.
            if running is None or running.done():
                self._budget.give(pixels)
            else:
                _when_done(running, self._budget.give, pixels)

    async def _read(self, field: str) -> tuple[bytes, tuple[int, int]]:
        lane = self._small if len(field) <= 2 * SMALL_BYTES else self._large
        return await asyncio.wrap_future(lane.threads.submit(_read, field))

    async def _begin(self, files: Sequence[bytes]) -> Future[list[DecodedImage]]:
        """Give them to a process, one after another; a WebP once its decoder has room."""
        pixels = [width * height for width, height in map(check_size, files)]
        is_small = sum(pixels) <= SMALL_PIXELS and sum(map(len, files)) <= SMALL_BYTES
        decode = self._small.decode if is_small else self._decode_large
        webp = (n for n, data in zip(pixels, files, strict=True) if data[8:12] == b"WEBP")
        if (largest := max(webp, default=0)) == 0:
            return decode(files)
        await self._webp_budget.take(largest)
        running = decode(files)
        _when_done(running, self._webp_budget.give, largest)
        return running

    def _decode_large(self, files: Sequence[bytes]) -> Future[list[DecodedImage]]:
        running = self._large.decode(files)
        _when_done(running, self._rest_later)
        return running

    def _rest_later(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(REST_S, self._large.rest)

    def close(self) -> None:
        """Stop, whatever is being decoded. Blocks for a moment."""
        if self._rest is not None:
            self._rest.cancel()
        for lane in (self._large, self._small):
            lane.close()


class _Lane:
    """Pictures that wait for each other, and the processes that decode them."""

    def __init__(self, workers: int, *, limit_s: float) -> None:
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._all = [DecodeProcess(limit_s=limit_s) for _ in range(workers)]
        self._idle: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    def decode(self, files: Sequence[bytes]) -> Future[list[DecodedImage]]:
        """One after another."""
        return self.threads.submit(lambda: [self._decode(data) for data in files])

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

    def rest(self) -> None:
        """End the processes that decode nothing. A further picture starts another one."""
        with contextlib.suppress(RuntimeError):  # it was closed meanwhile
            self.threads.submit(self._end_idle)

    def _end_idle(self) -> None:
        for _ in self._all:
            with contextlib.suppress(queue.Empty):
                process = self._idle.get_nowait()
                process.close()
                self._idle.put(process)
        trim()

    def close(self) -> None:
        for process in self._all:
            process.kill()
        self.threads.shutdown(wait=True, cancel_futures=True)
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
        data = _of_base64(encoded)
    except ValueError as error:
        raise ImageBase64Invalid(f"The picture is not base64: {error}.", param="image") from error
    if not data:
        raise ImageBase64Invalid("The picture is empty.", param="image")
    if len(data) > MAX_BYTES:
        raise _too_large()
    return data


def _of_base64(text: str) -> bytes:
    """The bytes. Piece by piece, since no other thread runs meanwhile. Raises `ValueError`."""
    data, length = bytearray(len(text) // 4 * 3 + 3), 0
    for start in range(0, len(text), _PIECE):
        if length != start // 4 * 3:
            raise binascii.Error("Excess data after padding")
        piece = binascii.a2b_base64(text[start : start + _PIECE], strict_mode=True)
        data[length : length + len(piece)] = piece
        length += len(piece)
    return bytes(memoryview(data)[:length])


def check_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the header; refuses what is no picture, or too many pixels."""
    header = read_header(data)
    if header is None:
        raise ImageFormatUnsupported("The bytes are no PNG, JPEG, WebP or GIF.", param="image")
    if header.size is None or 0 in header.size:
        raise _undecodable(data, Unreadable("is damaged"))
    width, height = header.size
    if width * height > (limit := most_pixels(header.format)):
        raise ImageTooManyPixels(
            f"The {header.format} has {width}x{height} pixels; the limit is {limit:,}.",
            param="image",
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


THUMBNAIL_SIDE = 192
"""Pixels of the longer side: sharp at half of that on dense screens."""


def thumbnail_of(pixels: ImageArray) -> bytes:
    """The picture small, as WebP."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def decode_png(data: bytes) -> ImageArray:
    """The inverse of `encode_png`, for bytes that were stored by us."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def data_uri(data: bytes, *, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


@contextmanager
def _stored(digest: str) -> Iterator[Callable[[DecodedImage], DecodedImage]]:
    """While one's own picture is decoded: what is wrong with it is no client's mistake."""

    def same(image: DecodedImage) -> DecodedImage:
        if image.digest != digest:
            raise StoreDamaged("A stored picture shows something else than it did.", hint=_RESTORE)
        return image

    try:
        yield same
    except (TooLarge, WrongType, Unprocessable) as error:
        raise StoreDamaged("A stored picture cannot be read.", hint=_RESTORE) from error


def _finished(pixels: ImageArray) -> DecodedImage:
    pixels.flags.writeable = False
    return DecodedImage(pixels, image_digest(pixels))


def _too_large() -> ImageTooLarge:
    return ImageTooLarge(f"The picture is larger than {MAX_BYTES // 2**20} MiB.", param="image")


def _undecodable(data: bytes, error: Unreadable) -> ImageUndecodable:
    header = read_header(data)
    name = header.format if header else "picture"
    return ImageUndecodable(f"The {name} {error}.", param="image")


def _when_done(running: Future[Any], call: Callable[..., None], *arguments: int) -> None:
    loop = asyncio.get_running_loop()
    running.add_done_callback(lambda _: loop.call_soon_threadsafe(call, *arguments))


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
