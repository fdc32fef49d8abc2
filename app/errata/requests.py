"""One request as a value: what is sent, how its answer is read, and whether it may be repeated.

Nothing here sends anything; the two clients do, each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Generic, TypeVar

import httpx
from pydantic import ValidationError

from .errors import EditCancelled, ErrataError, NoAnswer, NotErrata, Refused, refusal
from .models import Edit, Model

T = TypeVar("T")
M = TypeVar("M", bound=Model)

_OURS = {"message", "hint", "code"}
_PASSING = {502, 503, 504}
"""Statuses by which a gateway says that the server behind it does not answer now."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request. `repeatable`: sent twice it does what it does when sent once."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Mapping[str, Any] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    accepts: frozenset[int] = frozenset()

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(
            self.method,
            self.path,
            json=self.body,
            params=dict(self.params) or None,
            headers=dict(self.headers),
        )

    def answer(self, response: httpx.Response) -> T:
        """What a whole response says. Raises `Refused` and `NotErrata`."""
        check(response, self.accepts)
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise not_errata(response) from error


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`last` is what the next page comes after."""

    data: list[T]
    has_more: bool
    last: str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list that is read page by page. `most` is how many entries are wanted; None: all."""

    path: str
    item: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    last_field: str = "last_id"
    most: int | None = None
    page_size: int = 200

    def page(self, after: str | None, given: int) -> Call[Page[T]]:
        """The call for the page after `after`, `given` entries having been given out."""
        size = self.page_size if self.most is None else min(self.page_size, self.most - given)
        params = {**self.params, "limit": str(size)} | ({} if after is None else {"after": after})
        return Call("GET", self.path, self._read, params=params)

    def wants_more(self, given: int) -> bool:
        return self.most is None or given < self.most

    def _read(self, response: httpx.Response) -> Page[T]:
        read = response.json()
        last = read[self.last_field]
        data = [self.item(each) for each in read["data"]]
        return Page(data, bool(read["has_more"]), None if last is None else str(last))


def one(model: type[M]) -> Callable[[httpx.Response], M]:
    """Reads a response that is one object."""
    return lambda response: model.model_validate(response.json())


def made_of(edit: Edit) -> Edit:
    """The edit, if it was made: one that was waited for may have failed, or been called off."""
    if edit.status == "failed":
        raise refusal(edit.error or {}, status=422)
    if edit.status == "cancelled":
        raise EditCancelled(f"edit {edit.id} was cancelled")
    return edit


def check(response: httpx.Response, accepts: frozenset[int] = frozenset()) -> None:
    """Nothing, if the response is what was wanted. Raises `Refused` and `NotErrata`."""
    if response.is_success or response.status_code in accepts:
        return
    try:
        said = response.json()
    except ValueError:
        said = None
    fields = said.get("error") if isinstance(said, dict) else None
    if isinstance(fields, dict) and set(fields) >= _OURS:
        raise refusal(fields, status=response.status_code, retry_after=_retry_after(response))
    raise not_errata(response)


def not_errata(response: httpx.Response) -> NotErrata:
    """For an answer that cannot be read. Whatever else stands there, it is not repeated here."""
    url = response.request.url
    place = f"{url.scheme}://{url.netloc.decode('ascii')}"
    return NotErrata(
        f"{place} answered {response.status_code} {response.reason_phrase}, and not as Errata "
        "does: it is another server, or a proxy stands between (NO_PROXY goes past it)",
        status=response.status_code,
        retry_after=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, from a number or a date (RFC 9110, section 10.2.3)."""
    said = response.headers.get("Retry-After")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time()
        except ValueError:
            return None
    return max(0.0, seconds)


def may_pass(error: ErrataError, *, repeatable: bool) -> bool:
    """Whether the same request may do better in a while, and can be sent again safely."""
    match error:
        case NoAnswer():
            return repeatable or not error.sent
        case Refused():  # nothing was done: the server says so
            return error.retryable
        case NotErrata():
            return repeatable and error.status in _PASSING
    return False
