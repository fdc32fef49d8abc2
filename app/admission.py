"""Who may come in: a place in the queue, bounded by requests and by tokens.

How fast places become free is measured where requests leave: the time since the one before it
left, or since this one came, if later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import QueueFull

_SMOOTHING = 0.1
_FIRST_GUESS_S = 0.2


@dataclass(frozen=True, slots=True)
class OverloadStatus:
    """How busy it is. `wait_s` estimates how long a new request would wait."""

    waiting: int
    limit: int
    tokens: int
    token_limit: int
    wait_s: float

    @property
    def is_full(self) -> bool:
        return self.waiting >= self.limit or self.tokens >= self.token_limit


class Admission:
    """Lives on the event loop's thread."""

    def __init__(self, *, requests: int, tokens: int) -> None:
        self._limit = requests
        self._token_limit = tokens
        self._requests = 0
        self._tokens = 0
        self._request_s = _FIRST_GUESS_S
        self._token_s = 0.0
        self._left_at = 0.0

    def status(self) -> OverloadStatus:
        wait_s = max(self._requests * self._request_s, self._tokens * self._token_s)
        return OverloadStatus(self._requests, self._limit, self._tokens, self._token_limit, wait_s)

    @contextmanager
    def ticket(self, tokens: int = 0) -> Iterator[None]:
        """A place for as long as the block runs, for a request of at most `tokens`.

        One that is alone always has a place. Raises `QueueFull`, with the time in which what is
        here now will be gone.
        """
        status = self.status()
        if status.waiting >= status.limit:
            raise self._full(f"{status.waiting} requests are waiting or running", status.limit)
        if self._requests and status.tokens + tokens > status.token_limit:
            raise self._full(
                f"Requests that wait or run come to {status.tokens} tokens", status.token_limit
            )
        self._requests += 1
        self._tokens += tokens
        began = time.perf_counter()
        try:
            yield
        finally:
            self._requests -= 1
            self._tokens -= tokens
            now = time.perf_counter()
            took_s = now - max(began, self._left_at)
            self._left_at = now
            self._request_s += _SMOOTHING * (took_s - self._request_s)
            if tokens:
                self._token_s += _SMOOTHING * (took_s / tokens - self._token_s)

    def _full(self, what: str, limit: int) -> QueueFull:
        return QueueFull(
            f"{what}, and {limit} may.", retry_after_s=max(1, math.ceil(self.status().wait_s))
        )
