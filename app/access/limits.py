"""How often a key may be used: buckets that fill with time. In memory; a restart fills them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import RateLimited

_MINUTE_S = 60.0
_DAY_S = 86_400.0


@dataclass(slots=True)
class Bucket:
    """Holds up to `size` uses and fills evenly within `period_s` seconds."""

    size: int
    period_s: float
    what: str
    clock: Callable[[], float] = time.monotonic
    _left: float = 0.0
    _at: float = 0.0

    def __post_init__(self) -> None:
        self._left, self._at = float(self.size), self.clock()

    def take(self, count: int = 1) -> None:
        """Use it `count` times. Raises `RateLimited`, and then nothing is used."""
        now = self.clock()
        self._left = min(self.size, self._left + (now - self._at) * self.size / self.period_s)
        self._at = now
        if count > self._left:
            wait_s = (min(count, self.size) - self._left) * self.period_s / self.size
            raise RateLimited(
                f"This key may be used for {self.size} {self.what}, and they are spent.",
                hint="No wait helps: send fewer at once." if count > self.size else None,
                retry_after_s=max(1, math.ceil(wait_s)),
            )
        self._left -= count


class Allowances:
    """The buckets of all keys. Lives on the event loop's thread."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def take_request(self, key_id: str, per_minute: int | None) -> None:
        """Raises `RateLimited`. None: there is no limit."""
        self._take(key_id, per_minute, _MINUTE_S, "requests a minute", 1)

    def take_edits(self, key_id: str, per_day: int | None, count: int) -> None:
        """Raises `RateLimited`. None: there is no limit."""
        self._take(key_id, per_day, _DAY_S, "edits a day", count)

    def _take(self, key_id: str, size: int | None, period_s: float, what: str, count: int) -> None:
        if size is None:
            return
        bucket = self._buckets.get((key_id, what))
        if bucket is None:
            bucket = self._buckets[key_id, what] = Bucket(size, period_s, what)
        bucket.take(count)
