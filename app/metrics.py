"""What the server counts and times of itself, for Prometheus. Never an id, never a text.

Each application has a registry of its own. Counters are told what happened; gauges of the state
are read when somebody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.timing import Lap

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG_S = (*_QUICK_S, 30.0, 60.0, 120.0, 300.0)
_COUNTS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987)

State = Mapping[str, float]


@dataclass(slots=True)
class Pace:
    """When the pieces of one answer came. Called on the device thread, read after the end."""

    began: float = field(default_factory=time.perf_counter)
    entered: float | None = None
    """When the device took it up."""
    first_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    _last: float = 0.0

    def enters(self) -> None:
        self.entered = time.perf_counter()

    def laps(self) -> list[Lap]:
        """Waiting; reading and routing, up to the first piece; writing, up to now."""
        now = time.perf_counter()
        entered = self.began if self.entered is None else self.entered
        first = now if self.first_s is None else max(entered, self.began + self.first_s)
        return [
            Lap("queue", self.began, entered),
            Lap("prefill", entered, first),
            Lap("decode", first, now),
        ]

    def piece(self) -> None:
        now = time.perf_counter()
        if self.first_s is None:
            self.first_s = now - self.began
        else:
            self.gaps_s.append(now - self._last)
        self._last = now


class Metrics:
    """All metrics of one application. `docs/operations.md` lists them; a test compares."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "errata_http_requests", "Requests by route and status.", "route", "method", "status"
        )
        self._request_s = self._histogram(
            "errata_http_request_seconds",
            "From request to the end of its answer.",
            _LONG_S,
            "route",
        )
        self._answers = self._counter(
            "errata_answers", "Answers, and whether an edit took part.", "edited", "finish_reason"
        )
        self._answer_s = self._histogram(
            "errata_answer_seconds", "One answer on the device, waiting included.", _LONG_S
        )
        self._queue_s = self._histogram(
            "errata_queue_seconds", "Until the device takes a question up.", _LONG_S
        )
        self._first_s = self._histogram(
            "errata_time_to_first_token_seconds", "Until the first piece of text.", _LONG_S
        )
        self._gap_s = self._histogram(
            "errata_inter_token_seconds", "Between two pieces of text of one answer.", _QUICK_S
        )
        self._prompt_tokens = self._counter("errata_prompt_tokens", "Tokens read.")
        self._new_tokens = self._counter("errata_generated_tokens", "Tokens written.")
        self._prefix_hits = self._counter(
            "errata_prefix_cache_hits", "Answers whose prompt began with what was kept."
        )
        self._prefix_tokens = self._counter(
            "errata_prefix_cache_tokens", "Tokens read that were not run again."
        )
        self._candidates = self._histogram(
            "errata_routing_candidates", "Edits that passed the image filter, by answer.", _COUNTS
        )
        self._applied = self._histogram(
            "errata_experts_applied", "Experts that took part in an answer.", _COUNTS
        )
        self._edits = self._counter("errata_edits", "Edits that came to an end.", "outcome")
        self._edit_s = self._histogram(
            "errata_edit_seconds", "Where the time of an edit goes.", _LONG_S, "stage"
        )
        self._verified = self._counter(
            "errata_verifications", "What verification said of committed edits.", "outcome"
        )
        self._restarts = self._counter(
            "errata_engine_restarts", "How often the model's process was started again."
        )
        self._webhook = self._counter(
            "errata_webhook_deliveries", "Attempts to tell the webhook's receiver.", "outcome"
        )
        for outcome in ("delivered", "retried", "given_up", "dropped"):
            self._webhook.labels(outcome)
        self._store_s = self._histogram(
            "errata_store_seconds", "One transaction of the database.", _QUICK_S, "operation"
        )

    def request_ended(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """`route` is a template; None where nothing is at the path. Status 0: nobody was left."""
        self._requests.labels(route or "none", method, str(status)).inc()
        self._request_s.labels(route or "none").observe(seconds)

    def answered(
        self,
        pace: Pace,
        *,
        finish_reason: str,
        prompt_tokens: int,
        new_tokens: int,
        candidates: int,
        applied: int,
        cached_tokens: int = 0,
    ) -> None:
        self._answers.labels("true" if applied else "false", finish_reason).inc()
        self._answer_s.observe(time.perf_counter() - pace.began)
        if pace.entered is not None:
            self._queue_s.observe(pace.entered - pace.began)
        if pace.first_s is not None:
            self._first_s.observe(pace.first_s)
        for gap in pace.gaps_s:
            self._gap_s.observe(gap)
        self._prompt_tokens.inc(prompt_tokens)
        self._new_tokens.inc(new_tokens)
        if cached_tokens:
            self._prefix_hits.inc()
            self._prefix_tokens.inc(cached_tokens)
        self._candidates.observe(candidates)
        self._applied.observe(applied)

    def edit_ended(
        self, outcome: str, laps_ms: Mapping[str, float], *, verified: bool | None
    ) -> None:
        """`outcome`: committed, refused, cancelled or failed. `verified` is that of a commit."""
        self._edits.labels(outcome).inc()
        for stage, ms in laps_ms.items():
            self._edit_s.labels(stage).observe(ms / 1000)
        if outcome == "committed":
            said = {True: "verified", False: "damaged", None: "off"}[verified]
            self._verified.labels(said).inc()

    def told(self, outcome: str) -> None:
        """`outcome`: delivered, retried, given_up, or dropped before it was tried."""
        self._webhook.labels(outcome).inc()

    def stored(self, operation: str, seconds: float) -> None:
        """Called on worker threads. `operation`: read or write."""
        self._store_s.labels(operation).observe(seconds)

    def engine_restarted(self) -> None:
        """Called on the thread that supervises it."""
        self._restarts.inc()

    def watch(self, state: Callable[[], State]) -> None:
        """Show what `state` says, read on the event loop whenever somebody looks."""
        self.registry.register(_State(state))

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(name, what, labels, buckets=tuple(buckets), registry=self.registry)


GAUGES: Mapping[str, str] = {
    "errata_ready": "1 while the server answers questions.",
    "errata_engine_up": "1 while the model can be asked.",
    "errata_version": "The newest version, which is served.",
    "errata_edits_active": "Edits that are served.",
    "errata_edits_stale": "Edits that other weights made.",
    "errata_edits_pending": "Edits that wait or are being made.",
    "errata_requests_waiting": "Requests that wait for the device or have it.",
    "errata_jobs_waiting": "Jobs in the queue of the device.",
    "errata_webhook_behind": "Messages that the webhook's receiver has not been told, at least.",
}
"""What the state is read for, by name."""


class _State(Collector):
    def __init__(self, state: Callable[[], State]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(name, what) for name, what in GAUGES.items()]

    def collect(self) -> Iterable[Metric]:
        state = self._state()
        return [
            GaugeMetricFamily(name, what, value=state[name])
            for name, what in GAUGES.items()
            if name in state
        ]
