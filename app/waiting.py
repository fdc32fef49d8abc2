"""Waiting that can be called off: everything that waits at one place, at once, from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Waits:
    """Whatever waits inside `wait` gets a `TimeoutError` once `end` was called.

    Lives on the event loop's thread.
    """

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self.is_over = False

    @asynccontextmanager
    async def wait(self, seconds: float | None = None) -> AsyncIterator[None]:
        """The block may wait for `seconds` at most, or until `end`. Raises `TimeoutError`."""
        async with asyncio.timeout(0 if self.is_over else seconds) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def end(self) -> None:
        """Wait no more, now and from now on."""
        self.is_over = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
