"""Where a request's time went, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lap:
    """From when to when something took, in seconds of `time.perf_counter`."""

    name: str
    began: float
    ended: float


class Stopwatch:
    """Named laps, added up, and the total since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._laps: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._in_order: list[Lap] = []
        self._stopped: dict[str, float] | None = None

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            began = self._running.pop(name)
            ended = time.perf_counter()
            self._laps[name] = self._laps.get(name, 0.0) + ended - began
            if self._in_order and self._in_order[-1].name == name:
                began = self._in_order.pop().began
            self._in_order.append(Lap(name, began, ended))

    @property
    def laps(self) -> tuple[Lap, ...]:
        """Those that are over, in order; several of one name that follow each other are one."""
        return tuple(self._in_order)

    def read(self) -> dict[str, float]:
        """Laps as they stand, running ones too, and the total; or as they stood when it stopped."""
        return self._now() if self._stopped is None else dict(self._stopped)

    def stop(self) -> dict[str, float]:
        """What `read` says from now on."""
        self._stopped = self._now()
        return self.read()

    def _now(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = dict(self._laps)
        for name, began in self._running.items():
            seconds[name] = seconds.get(name, 0.0) + now - began
        seconds["total"] = now - self._began
        return {name: round(1000 * value, 3) for name, value in seconds.items()}
