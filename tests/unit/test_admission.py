"""Places in the queue: as many requests and tokens as may, and the time until one is free."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from app import admission
from app.admission import Admission
from app.errors import QueueFull


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(admission, "time", clock)
    return clock


def test_requests_and_tokens_are_bounded() -> None:
    gate = Admission(requests=3, tokens=100)
    with ExitStack() as inside:
        inside.enter_context(gate.ticket(60))
        with pytest.raises(QueueFull, match="60 tokens, and 100 may"):
            inside.enter_context(gate.ticket(41))
        inside.enter_context(gate.ticket(40))
        assert gate.status().is_full
        inside.enter_context(gate.ticket())
        with pytest.raises(QueueFull, match="3 requests are waiting or running, and 3 may"):
            inside.enter_context(gate.ticket())
    assert (gate.status().waiting, gate.status().tokens) == (0, 0)


def test_a_request_larger_than_the_queue_is_taken_when_it_is_alone() -> None:
    gate = Admission(requests=3, tokens=100)
    with gate.ticket(500), pytest.raises(QueueFull):
        gate.ticket(1).__enter__()
    assert gate.status().tokens == 0


def test_the_wait_is_what_requests_were_seen_to_take(clock: Clock) -> None:
    """Four at a time that take 8 s each leave one every 2 s: four are gone in 8 s."""
    gate = Admission(requests=4, tokens=10_000)
    for _ in range(60):
        with ExitStack() as inside:
            for _ in range(4):
                inside.enter_context(gate.ticket(100))
            clock.now += 8.0
    with ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(gate.ticket(100))
        with pytest.raises(QueueFull) as refused:
            gate.ticket(100).__enter__()
    assert refused.value.retry_after_s is not None
    assert 5 <= refused.value.retry_after_s <= 11
