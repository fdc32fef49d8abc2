"""What surrounds every request: its id and its log line, who may address us, and how wordily.

Plain ASGI, so that nothing is buffered and a client's going away is seen at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.keyring import Keyring
from app.bodies import draining
from app.errors import HostNotAllowed, InvalidField
from app.handlers import as_service_error, error_response, request_id_of
from app.metrics import Metrics
from app.observability import access_log
from app.tracing import Tracing
from app.ulid import new_ulid

MAX_QUERY_FIELDS = 64

logger = logging.getLogger(__name__)


class RequestContext:
    """Outermost: gives the request its id, counts it, logs it, and answers what nobody caught.

    HEAD is answered wherever GET is: the server leaves the body out by itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        tracing: Tracing,
        on_begin: Callable[[], None],
        on_end: Callable[[], None],
        is_ending: Callable[[], bool],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing
        self._on_begin = on_begin
        self._on_end = on_end
        self._is_ending = is_ending

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

        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        self._on_begin()
        with self._tracing.request(scope["method"], Headers(scope=scope)) as span:
            try:
                await self._app(inner, receive, send_with_id)
            except ClientDisconnect:
                logger.debug("the client went away")
            except asyncio.CancelledError:
                if not self._is_ending():
                    raise
                if status == 0:
                    await error_response(draining(), request_id)(scope, receive, send_with_id)
            except Exception as error:  # noqa: BLE001 - the last resort: logged in full, told in general
                told = as_service_error(error)
                if status == 0:
                    await error_response(told, request_id)(scope, receive, send_with_id)
            finally:
                self._on_end()
                scope["route"] = inner.get("route")
                seconds = time.perf_counter() - began
                path = getattr(scope["route"], "path", None)
                self._metrics.request_ended(path, scope["method"], status, seconds)
                span.route, span.status = path, status
                access_log(scope, request_id, status, seconds, state["log"])


class SafeInBrowsers:
    """Tells browsers what an answer may do: load nothing from elsewhere, run no script that is
    written into a page, be shown in no frame, be taken for nothing but what it says it is."""

    HEADERS: ClassVar[Mapping[str, str]] = {
        "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.HEADERS)
            await send(message)

        await self._app(scope, receive, send_guarded)


class HostGuard:
    """Without API keys, loopback is the protection; a page in a browser must not get around it.

    A foreign `Host` is a name rebound to 127.0.0.1; a foreign `Origin` is another site's page.
    Where keys are asked for, the server may be known by any name, and a page of another site is
    still refused.
    """

    def __init__(self, app: ASGIApp, *, allowed: frozenset[str], keyring: Keyring) -> None:
        self._app = app
        self._allowed = allowed
        self._keyring = keyring

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
        host = _host_of(f"//{headers.get('host', '')}")
        if self._keyring.is_open and host not in self._allowed:
            return HostNotAllowed("This server does not answer to that host name.", param="Host")
        origin = headers.get("origin")
        if origin is not None and (_host_of(origin) or "") not in self._allowed | {host}:
            return HostNotAllowed("Pages of other sites may not use this server.", param="Origin")
        return None


class QueryLimit:
    """Counts the fields of a query before anything splits it, as the framework does by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["query_string"].count(b"&") >= MAX_QUERY_FIELDS:
            refusal = InvalidField(f"The query has more than {MAX_QUERY_FIELDS} fields.")
            await error_response(refusal, request_id_of(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)


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
