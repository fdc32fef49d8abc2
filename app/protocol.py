"""HTTP on the wire: how many connections, how long they may be idle, and refusals in our words.

uvicorn reads and writes HTTP; here is what it leaves to others. A connection that has no request
in progress is idle: kept alive, half-way through a header, or with a body that nobody reads.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.errors import InvalidHttp, QueueFull, RequestTimeout, ServiceError
from app.handlers import error_body
from app.settings import Settings
from app.ulid import new_ulid

ACCEPTED_AT_ONCE = 16
"""Each turn of the loop. More would be accepted before the first of them could be refused."""

LAST_WORDS_S = 2
"""How long connections have after draining, before they are cut."""

_OTHER_FILES = 96
"""Descriptors that are no connection: database, weights, pipes, and those just accepted."""

_LOGGED_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class HttpConfig(uvicorn.Config):
    """uvicorn's configuration for one application of ours."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=max(1, round(settings.idle_timeout_s)),
            timeout_graceful_shutdown=LAST_WORDS_S,
        )
        self.idle_timeout_s = settings.idle_timeout_s
        self.connection_limit = connections_allowed(settings.connection_limit)
        self._logged_at = -_LOGGED_EVERY_S

    def log_full(self, now: float) -> None:
        """One line, and none for a minute: there may be thousands of reasons."""
        if now - self._logged_at >= _LOGGED_EVERY_S:
            self._logged_at = now
            logger.warning("%d connections are open, and no more may be", self.connection_limit)


def connections_allowed(limit: int) -> int:
    """`limit`, or as many as the process may have files. Raises that number where it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limit + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(8, min(limit, files - _OTHER_FILES))


class Protocol(H11Protocol):
    """One connection."""

    config: HttpConfig

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._idle_since = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._has_begun = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    # --- what happens to it -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio sets it on sockets that it opened itself, and not on those of a handed-over one.
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest()
        if len(self.connections) > self.config.connection_limit:
            self.config.log_full(self.loop.time())
            self._make_room()

    def data_received(self, data: bytes) -> None:
        self._has_begun = True
        super().data_received(data)
        if self.is_busy:
            self._stop(idle=True)
        elif self._idle is None and not self.transport.is_closing():
            self._rest()

    def on_response_complete(self) -> None:
        self._has_begun = False
        self._rest()
        super().on_response_complete()  # which may begin with the next request
        if self.is_busy:
            self._stop(idle=True)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.config.idle_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop(stuck=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(idle=True, stuck=True)
        super().connection_lost(exc)

    # --- idling -----------------------------------------------------------------------------

    def _rest(self) -> None:
        self._stop(idle=True)
        self._idle_since = self.loop.time()
        self._idle = self.loop.call_later(self.config.idle_timeout_s, self._end_idling)

    def _stop(self, *, idle: bool = False, stuck: bool = False) -> None:
        if idle and self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if stuck and self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _end_idling(self) -> None:
        self._idle = None
        if self._has_begun and self.conn.our_state is h11.IDLE:
            self._refuse(RequestTimeout("The request did not arrive in time."))
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that was idle for longest; this one, if all others are busy."""
        others = (each for each in self.connections if isinstance(each, Protocol))
        idle = [each for each in others if each is not self and not each.is_busy]
        if idle:
            longest = min(idle, key=lambda each: each._idle_since)
            self.connections.discard(longest)
            longest.transport.close()
        else:
            self._refuse(QueueFull("Too many connections are open.", retry_after_s=1))

    # --- refusing ---------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidHttp(f"This is no HTTP that can be served. {msg}"))

    def _refuse(self, error: ServiceError) -> None:
        """Answer instead of the application, and close."""
        request_id = new_ulid()
        body = json.dumps(error_body(error, request_id)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", str(error.retry_after_s).encode()))
        reason = HTTPStatus(error.status).phrase.encode()
        response = h11.Response(status_code=error.status, headers=headers, reason=reason)
        try:
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            logger.debug("a connection broke in the middle of its answer")
        self.transport.close()


class HttpServer(uvicorn.Server):
    """uvicorn's server for one `HttpConfig`."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(socket.SOMAXCONN)  # those who wait to be accepted cost nothing
