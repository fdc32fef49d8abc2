"""What surrounds every request: its id and its log line, who may address us, how much is read.

Plain ASGI, so that nothing is buffered and a client's going away is seen at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, HostNotAllowed, ServiceError
from app.handlers import as_service_error, error_response, request_id_of
from app.observability import access_log
from app.ulid import new_ulid

MAX_BODY = 16 * 1024 * 1024
DRAIN_BYTES = 256 * 1024 * 1024
DRAIN_SECONDS = 10.0

logger = logging.getLogger(__name__)


class RequestContext:
    """Outermost: gives the request its id, counts it, logs it, and answers what nobody caught."""

    def __init__(
        self, app: ASGIApp, *, on_begin: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        self._app = app
        self._on_begin = on_begin
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _accepted_id(Headers(scope=scope).get("x-request-id")) or new_ulid()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["log"] = {}
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        self._on_begin()
        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            logger.debug("the client went away")
        except Exception as error:  # noqa: BLE001 - the last resort: logged in full, told in general
            told = as_service_error(error)
            if status == 0:
                await error_response(told, request_id)(scope, receive, send_with_id)
        finally:
            self._on_end()
            access_log(scope, request_id, status, time.perf_counter() - began, state["log"])


class HostGuard:
    """Without API keys, loopback is the protection; a page in a browser must not get around it.

    A foreign `Host` is a name rebound to 127.0.0.1; a foreign `Origin` is another site's page.
    """

    def __init__(self, app: ASGIApp, *, allowed: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            await error_response(refusal, request_id_of(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> HostNotAllowed | None:
        if _host_of(f"//{headers.get('host', '')}") not in self._allowed:
            return HostNotAllowed("This server does not answer to that host name.", param="Host")
        origin = headers.get("origin")
        if origin is not None and _host_of(origin) not in self._allowed:
            return HostNotAllowed("Pages of other sites may not use this server.", param="Origin")
        return None


class BodyLimit:
    """Counts the body as it arrives, with or without Content-Length.

    An error is only sent once the client had a chance to finish sending: closing a connection that
    still receives would reset it, and the client would never read why.
    """

    def __init__(self, app: ASGIApp, *, limit: int = MAX_BODY) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._limit)
        headers = Headers(scope=scope)
        expects = headers.get("expect", "").lower() == "100-continue"

        async def send_after_body(message: Message) -> None:
            is_error = message["type"] == "http.response.start" and message["status"] >= 400
            if is_error and (body.began or not expects):
                await body.discard()
            await send(message)

        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit:
            refusal: ServiceError = body.too_large()
            await error_response(refusal, request_id_of(scope))(scope, receive, send_after_body)
            return
        await self._app(scope, body.receive, send_after_body)


class _Body:
    """A request's body on its way in."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._count = 0
        self._ended = False
        self.began = False

    def too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self._limit // 2**20} MiB.")

    async def receive(self) -> Message:
        message = await self._next()
        if self._count > self._limit:
            raise self.too_large()
        return message

    async def discard(self) -> None:
        """Read the rest and forget it, within bounds."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._ended and self._count < DRAIN_BYTES:
                    await self._next()
        except TimeoutError:
            logger.debug("a client kept sending a body that was refused")

    async def _next(self) -> Message:
        self.began = True
        message = await self._receive()
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._ended = not message.get("more_body", False)
        else:
            self._ended = True
        return message


def _accepted_id(given: str | None) -> str | None:
    """An inbound id is echoed if it is 1 to 128 printable ASCII characters."""
    if given and len(given) <= 128 and given.isascii() and given.isprintable():
        return given
    return None


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
