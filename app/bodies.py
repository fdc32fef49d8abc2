"""Request bodies on their way in: how large one may be, how long it may take, how much is held.

A body is held from its first byte to the end of its request, since what is made of it (text,
picture) is no smaller. Small ones always get in: their number is bounded by the connections'.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, Draining, QueueFull, RequestTimeout
from app.handlers import error_response, request_id_of
from app.waiting import Waits

MAX_BODY = 16 * 1024 * 1024
SMALL_BODY = 64 * 1024

DRAIN_BYTES = 2 * MAX_BODY
DRAIN_SECONDS = 5.0
"""How much, and how long, is still read of a body that is refused."""

ROOM_SECONDS = 2.0
"""How long a body waits for others to make room for it."""

logger = logging.getLogger(__name__)


class Bodies:
    """What all requests together hold. One per application, on the event loop's thread."""

    def __init__(self, *, limit: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.arriving = Waits()
        self._limit = max(limit, MAX_BODY)
        self._held = 0
        self._turn = asyncio.Lock()
        self._released = asyncio.Event()

    @asynccontextmanager
    async def room(self) -> AsyncIterator[Room]:
        """A place for one body. What it took is given back when the block ends."""
        room = Room(self)
        try:
            yield room
        finally:
            self._held -= room.size
            self._released.set()

    def take(self, size: int) -> bool:
        if self._held + size > self._limit:
            return False
        self._held += size
        return True

    async def wait_for(self, size: int) -> bool:
        """As `take`, after those who came before. False if it takes too long."""
        try:
            async with self.arriving.wait(ROOM_SECONDS), self._turn:
                while not self.take(size):
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            return False
        return True


class Room:
    """What one request holds of it."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.size = 0

    async def announce(self, size: int) -> None:
        """Before a body of a known size is read. Raises `QueueFull` and `Draining`."""
        if size > SMALL_BODY:
            if not await self._bodies.wait_for(size):
                raise self._full()
            self.size = size

    def grow(self, size: int) -> None:
        """As a body comes to `size` bytes that nobody announced. Raises `QueueFull`."""
        if size > max(SMALL_BODY, self.size):
            if not self._bodies.take(size - self.size):
                raise self._full()
            self.size = size

    def _full(self) -> QueueFull | Draining:
        if self._bodies.arriving.is_over:
            return draining()
        return QueueFull("Other requests hold all the room there is for bodies.", retry_after_s=1)


def draining() -> Draining:
    return Draining("This server is shutting down.", retry_after_s=5)


class BodyLimit:
    """Counts a body as it arrives, with or without Content-Length, and does not wait for ever.

    An error is only sent once the client had a chance to finish sending: closing a connection that
    still receives would reset it, and the client would never read why.
    """

    def __init__(self, app: ASGIApp, *, bodies: Bodies, limit: int = MAX_BODY) -> None:
        self._app = app
        self._bodies = bodies
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        announced = int(length) if length.isdigit() and len(length) < 20 else 0
        async with self._bodies.room() as room:
            body = _Body(receive, self._bodies, room, limit=self._limit, announced=announced)
            expects = headers.get("expect", "").lower() == "100-continue"

            async def send_after_body(message: Message) -> None:
                is_error = message["type"] == "http.response.start" and message["status"] >= 400
                if is_error and not body.is_late and (body.began or not expects):
                    await body.discard()
                if is_error and body.is_late:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                await send(message)

            if announced > self._limit:
                refusal = error_response(body.too_large(), request_id_of(scope))
                await refusal(scope, receive, send_after_body)
                return
            await self._app(scope, body.receive, send_after_body)


class _Body:
    """A request's body on its way in. `is_late`: it did not come, and is waited for no more."""

    def __init__(
        self, receive: Receive, bodies: Bodies, room: Room, *, limit: int, announced: int
    ) -> None:
        self._receive = receive
        self._bodies = bodies
        self._room = room
        self._limit = limit
        self._announced = announced
        self._count = 0
        self._ended = False
        self._left_s = bodies.timeout_s
        self.began = False
        self.is_late = False

    def too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit // 2**20} MiB.")

    async def receive(self) -> Message:
        """The next part. Raises what a body is refused with."""
        if self._ended:  # what is listened for now is the client's going away
            return await self._next()
        if not self.began:
            await self._room.announce(self._announced)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self._bodies.arriving.wait(self._left_s):
                message = await self._next()
        except TimeoutError as error:
            self.is_late = True
            if self._bodies.arriving.is_over:
                raise draining() from error
            raise RequestTimeout(
                f"The body did not arrive within {self._bodies.timeout_s:g} seconds."
            ) from error
        self._left_s -= loop.time() - began
        if self._count > self._limit:
            raise self.too_large()
        self._room.grow(self._count)
        return message

    async def discard(self) -> None:
        """Read the rest and forget it, within bounds."""
        try:
            async with self._bodies.arriving.wait(DRAIN_SECONDS):
                while not self._ended and self._count < DRAIN_BYTES:
                    await self._next()
        except TimeoutError:
            logger.debug("a client kept sending a body that was refused")
        self.is_late = not self._ended

    async def _next(self) -> Message:
        self.began = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        else:
            self._ended = True
        return message
