"""`Client`: the API as plain methods that return when the answer is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

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


def sends(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return described_by(build, method)


def lists(build: Callable[P, Listing[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._pages(build(*args, **kwargs))

    return described_by(build, method)


def streams(build: Callable[P, Call[Answer]]) -> Callable[Concatenate[Client, P], Stream]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Stream:
        return Stream(self, build(*args, **kwargs))

    described = described_by(build, method)
    described.__doc__ = f"The same as a `Stream` of pieces of text. {build.__doc__}"
    return described


def follows(build: Callable[P, Call[Edit]]) -> Callable[Concatenate[Client, P], Edit]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Edit:
        made = self.send(build(*args, **kwargs))
        return self.wait_for(made.id) if made.is_pending else made_of(made)

    return described_by(build, method)


class Client:
    """An Errata server. Safe to share between threads; use it in a `with`, or `close` it.

    Without `url` and `api_key` it is `ERRATA_URL` (or this machine) and `ERRATA_API_KEY`. What
    can be repeated safely is, up to `retries` times, as long as it may help; edits are safe, for
    each has an idempotency key. Raises `ErrataError` only.
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
            self._http = httpx.Client(**self._place.options(timeout_s))

    @property
    def url(self) -> str:
        return self._place.url

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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

    def wait_for(
        self,
        edit_id: str,
        *,
        on_progress: Callable[[Edit], None] | None = None,
        poll_s: float = 0.5,
    ) -> Edit:
        """The edit, once it is made. `on_progress` is given it each time it is read before.

        Raises what refused the edit (`EditNotEffective`, ...), and `EditCancelled`.
        """
        return made_of(self.settle(edit_id, on_progress=on_progress, poll_s=poll_s))

    def settle(
        self,
        edit_id: str,
        *,
        on_progress: Callable[[Edit], None] | None = None,
        poll_s: float = 0.5,
    ) -> Edit:
        """The edit, once it is no longer pending, however that ended."""
        while (edit := self.send(calls.get_edit(edit_id))).is_pending:
            if on_progress is not None:
                on_progress(edit)
            time.sleep(poll_s)
        return edit

    def edit_many(self, drafts: Iterable[Draft]) -> Iterator[Made]:
        """Make many edits, and say of each what came of it, in their order, as soon as it is known.

        One failure loses nothing else. Drafts are taken as they are needed, at most 100 at a time.
        """
        for batch in batches(drafts):
            with closing(self._opened(batch.call())) as response, self._place.said():
                for line in response.iter_lines():
                    if (made := batch.hear(line)) is None:
                        break
                    yield made
                else:
                    raise broken()

    def send(self, call: Call[T]) -> T:
        """What the server answers to one request."""

        def once() -> T:
            with self._place.said():
                response = self._http.send(call.request(self._http))
            return call.answer(response)

        return self._patiently(call, once)

    def _opened(self, call: Call[T]) -> httpx.Response:
        """The beginning of a response that is read bit by bit. The caller closes it."""

        def once() -> httpx.Response:
            with self._place.said():
                response = self._http.send(call.request(self._http), stream=True)
                if not response.is_success:
                    try:
                        response.read()
                    finally:
                        response.close()
            check(response)
            return response

        return self._patiently(call, once)

    def _patiently(self, call: Call[T], once: Callable[[], R]) -> R:
        patience = Patience(self._retries, call.repeatable)
        while True:
            try:
                return once()
            except ErrataError as error:
                wait_s = patience.after(error)
                if wait_s is None:
                    raise
            time.sleep(wait_s)

    def _pages(self, listing: Listing[T]) -> Iterator[T]:
        after, given = None, 0
        while listing.wants_more(given):
            page = self.send(listing.page(after, given))
            yield from page.data
            given += len(page.data)
            if not page.has_more:
                return
            after = page.last


class Stream:
    """Pieces of an answer's text, as they come. `answer` is there after the last one.

    The request is sent when reading begins. Leave it early in a `with`, or `close` it.
    """

    def __init__(self, client: Client, call: Call[Answer]) -> None:
        self._pieces = self._read(client, call)
        self.answer: Answer | None = None

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """The server stops answering, too."""
        self._pieces.close()

    def _read(self, client: Client, call: Call[Answer]) -> Generator[str, None, None]:
        heard = Heard()
        with closing(client._opened(streamed(call))) as response, client._place.said():
            for line in response.iter_lines():
                if piece := heard.hear(line):
                    yield piece
        self.answer = heard.end()
