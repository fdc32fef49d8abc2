"""Answers that take time: stopped when the client goes away, streamed if it wants that.

The status of a stream is decided by its first event, so a request that is refused gets a proper
error and not a stream that breaks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import ServiceError
from app.handlers import as_service_error

Result = TypeVar("Result")
Told = TypeVar("Told", contravariant=True)
Emit = Callable[[int, str], None]
Delta = tuple[int, str]


async def while_connected(request: Request, story: Coroutine[Any, Any, Result]) -> Result:
    """The result of `story`, cancelled if the client goes away first (`ClientDisconnect`)."""
    task = asyncio.ensure_future(story)
    watch = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


def one_line(text: str) -> str:
    """JSON that every reader of lines takes for one: some also break lines at these three."""
    return text.translate(_LINE_BREAKS)


_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""JSON escapes all others by itself, and these can only stand inside its strings."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream. `data` is JSON to be, or text that is sent as it is."""

    data: Any
    name: str | None = None

    def encode(self) -> bytes:
        text = self.data
        if not isinstance(text, str):
            text = json.dumps(text, ensure_ascii=False)
        named = "" if self.name is None else f"event: {self.name}\n"
        return f"{named}data: {one_line(text)}\n\n".encode()


class Wording(Protocol[Told]):
    """How one answer is told as a stream. Made anew for each."""

    def opening(self) -> Iterable[ServerEvent]:
        """What comes first, once it is sure that there will be an answer."""
        ...

    def delta(self, index: int, text: str) -> Iterable[ServerEvent]:
        """`text` goes on with answer number `index`."""
        ...

    def closing(self, result: Told) -> Iterable[ServerEvent]: ...

    def failure(self, error: ServiceError, request_id: str) -> Iterable[ServerEvent]:
        """What ends a stream that broke."""
        ...

    def noted(self, result: Told) -> dict[str, Any]:
        """What the log says of it: never the text."""
        ...


class EventStream(Response, Generic[Result]):
    """Server-sent events of one answer."""

    media_type = "text/event-stream"

    def __init__(
        self,
        wording: Wording[Result],
        task: asyncio.Task[Result],
        deltas: asyncio.Queue[Delta | None],
        first: Delta | None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._wording = wording
        self._task = task
        self._deltas = deltas
        self._first = first

    @classmethod
    async def begin(
        cls,
        request: Request,
        story: Callable[[Emit], Coroutine[Any, Any, Result]],
        wording: Wording[Result],
    ) -> EventStream[Result]:
        """Start `story` and wait for its first text, or its end. Raises what it raises till then.

        `story` is given a function that takes (index, text) on any thread.
        """
        loop = asyncio.get_running_loop()
        deltas: asyncio.Queue[Delta | None] = asyncio.Queue()

        def emit(index: int, text: str) -> None:
            loop.call_soon_threadsafe(deltas.put_nowait, (index, text))

        task = asyncio.ensure_future(story(emit))
        task.add_done_callback(lambda _: deltas.put_nowait(None))
        first = await while_connected(request, _first(task, deltas))
        return cls(wording, task, deltas, first)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = asyncio.ensure_future(_disconnected(receive))
        watch.add_done_callback(lambda _: self._task.cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_all(scope, send)
        finally:
            watch.cancel()
            self._task.cancel()

    async def _send_all(self, scope: Scope, send: Send) -> None:
        async def tell(events: Iterable[ServerEvent]) -> None:
            for event in events:
                body = event.encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})

        await tell(self._wording.opening())
        delta = self._first
        while delta is not None:
            await tell(self._wording.delta(*delta))
            delta = await self._deltas.get()
        if self._task.cancelled():
            raise ClientDisconnect
        if (error := self._task.exception()) is not None:
            assert isinstance(error, Exception)
            told = as_service_error(error)
            await tell(self._wording.failure(told, scope["state"]["request_id"]))
        else:
            result = self._task.result()
            scope["state"]["log"].update(self._wording.noted(result))
            await tell(self._wording.closing(result))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(task: asyncio.Task[Result], deltas: asyncio.Queue[Delta | None]) -> Delta | None:
    """The first text; None if the answer is complete without one."""
    try:
        first = await deltas.get()
    except asyncio.CancelledError:
        task.cancel()
        raise
    if first is None:
        task.result()
    return first


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
