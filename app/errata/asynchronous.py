"""`AsyncClient`: the same API as coroutines and asynchronous iterators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from . import calls
from .drafts import Draft
from .errors import ErrataError
from .lines import Heard, batches, broken, streamed
from .methods import described_by
from .models import Answer, Edit, Made
from .patience import Patience
from .places import TIMEOUT_S, Place
from .requests import Call, Listing, check, made_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def sends(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return described_by(build, method)


def lists(
    build: Callable[P, Listing[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return self._pages(build(*args, **kwargs))

    return described_by(build, method)


def streams(
    build: Callable[P, Call[Answer]],
) -> Callable[Concatenate[AsyncClient, P], AsyncStream]:
    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncStream:
        return AsyncStream(self, build(*args, **kwargs))

    described = described_by(build, method)
    described.__doc__ = f"The same as an `AsyncStream` of pieces of text. {build.__doc__}"
    return described


def follows(
    build: Callable[P, Call[Edit]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, Edit]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Edit:
        made = await self.send(build(*args, **kwargs))
        return await self.wait_for(made.id) if made.is_pending else made_of(made)

    return described_by(build, method)


class AsyncClient:
    """An Errata server, for one event loop. Use it in an `async with`, or `close` it.

    It is `Client` in all else: where the server is, what is repeated, what is raised.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = 3,
    ) -> None:
        self._place = Place.of(url, api_key)
        self._retries = retries
        with self._place.said():
            self._http = httpx.AsyncClient(**self._place.options(timeout_s))

    @property
    def url(self) -> str:
        return self._place.url

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    edit = follows(calls.edit)
    begin_edit = sends(calls.edit)
    send_draft = follows(calls.send_draft)
    generate = sends(calls.generate)
    stream = streams(calls.generate)
    explain = sends(calls.explain)
    attribute = sends(calls.attribute)
    get_edit = sends(calls.get_edit)
    edits = lists(calls.edits)
    cancel = sends(calls.cancel)
    picture = sends(calls.picture)
    thumbnail = sends(calls.thumbnail)
    scope = sends(calls.scope)
    preview = sends(calls.preview)
    rollback = sends(calls.rollback)
    reinstate = sends(calls.reinstate)
    restore = sends(calls.restore)
    events = lists(calls.events)
    versions = sends(calls.versions)
    report = sends(calls.report)
    import_feedback = sends(calls.import_feedback)
    feedback = lists(calls.feedback)
    get_feedback = sends(calls.get_feedback)
    feedback_picture = sends(calls.feedback_picture)
    feedback_thumbnail = sends(calls.feedback_thumbnail)
    resolve = sends(calls.resolve)
    list_keys = sends(calls.list_keys)
    create_key = sends(calls.create_key)
    revoke_key = sends(calls.revoke_key)
    health = sends(calls.health)
    load = sends(calls.load)

    async def wait_for(
        self,
        edit_id: str,
        *,
        on_progress: Callable[[Edit], None] | None = None,
        poll_s: float = 0.5,
    ) -> Edit:
        """The edit, once it is made. `on_progress` is given it each time it is read before.

        Raises what refused the edit (`EditNotEffective`, ...), and `EditCancelled`.
        """
        return made_of(await self.settle(edit_id, on_progress=on_progress, poll_s=poll_s))

    async def settle(
        self,
        edit_id: str,
        *,
        on_progress: Callable[[Edit], None] | None = None,
        poll_s: float = 0.5,
    ) -> Edit:
        """The edit, once it is no longer pending, however that ended."""
        while (edit := await self.send(calls.get_edit(edit_id))).is_pending:
            if on_progress is not None:
                on_progress(edit)
            await asyncio.sleep(poll_s)
        return edit

    async def edit_many(self, drafts: Iterable[Draft]) -> AsyncIterator[Made]:
        """Make many edits, and say of each what came of it, in their order, as soon as it is known.

        One failure loses nothing else. Drafts are taken as they are needed, at most 100 at a time.
        """
        for batch in batches(drafts):
            response = await self._opened(batch.call())
            async with aclosing(response):
                with self._place.said():
                    async for line in response.aiter_lines():
                        if (made := batch.hear(line)) is None:
                            break
                        yield made
                    else:
                        raise broken()

    async def send(self, call: Call[T]) -> T:
        """What the server answers to one request."""

        async def once() -> T:
            with self._place.said():
                response = await self._http.send(call.request(self._http))
            return call.answer(response)

        return await self._patiently(call, once)

    async def _opened(self, call: Call[T]) -> httpx.Response:
        """The beginning of a response that is read bit by bit. The caller closes it."""

        async def once() -> httpx.Response:
            with self._place.said():
                response = await self._http.send(call.request(self._http), stream=True)
                if not response.is_success:
                    async with aclosing(response):
                        await response.aread()
            check(response)
            return response

        return await self._patiently(call, once)

    async def _patiently(self, call: Call[T], once: Callable[[], Awaitable[R]]) -> R:
        patience = Patience(self._retries, call.repeatable)
        while True:
            try:
                return await once()
            except ErrataError as error:
                wait_s = patience.after(error)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)

    async def _pages(self, listing: Listing[T]) -> AsyncIterator[T]:
        after, given = None, 0
        while listing.wants_more(given):
            page = await self.send(listing.page(after, given))
            for each in page.data:
                yield each
            given += len(page.data)
            if not page.has_more:
                return
            after = page.last


class AsyncStream:
    """Pieces of an answer's text, as they come. `answer` is there after the last one.

    The request is sent when reading begins. Leave it early in an `async with`, or `close` it.
    """

    def __init__(self, client: AsyncClient, call: Call[Answer]) -> None:
        self._pieces = self._read(client, call)
        self.answer: Answer | None = None

    def __aiter__(self) -> AsyncIterator[str]:
        return self._pieces

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """The server stops answering, too."""
        await self._pieces.aclose()

    async def _read(self, client: AsyncClient, call: Call[Answer]) -> AsyncGenerator[str, None]:
        heard = Heard()
        response = await client._opened(streamed(call))
        async with aclosing(response):
            with client._place.said():
                async for line in response.aiter_lines():
                    if piece := heard.hear(line):
                        yield piece
        self.answer = heard.end()
