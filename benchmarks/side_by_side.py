"""Sides that answer rows take turns within each repeat, and are compared by processor time."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.device.messages import Done, Generate, Reply
from app.device.rows import RowScheduler
from benchmarks.report import table
from editing_core.editable_model import EditableModel
from editing_core.generation import GenerationRow
from editing_core.types import GenerationResult

Rows = Sequence[GenerationRow]
Side = Callable[[Rows], int]
"""Answers rows, and returns how many tokens it made."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Tokens a second of one side against another; more than 1 where the first is faster."""

    what: str
    first: float
    second: float
    ratio: float
    least: float
    most: float


def compare(
    what: str,
    sides: tuple[Side, Side],
    rows: Callable[[int, int], Rows],
    *,
    repeats: int,
) -> Ratio:
    """Take turns on the rows of each repeat and side; a first repeat warms up and is dropped."""
    rates: list[tuple[float, float]] = []
    for repeat in range(repeats + 1):
        first, second = (_rate(side, rows(repeat, i)) for i, side in enumerate(sides))
        if repeat:
            rates.append((first, second))
    ratios = [first / second for first, second in rates]
    first, second = (statistics.median(each) for each in zip(*rates, strict=True))
    found = Ratio(what, first, second, statistics.median(ratios), min(ratios), max(ratios))
    print(found, file=sys.stderr)
    return found


def _rate(side: Side, rows: Rows) -> float:
    start = time.process_time()
    tokens = side(rows)
    return tokens / (time.process_time() - start)


def together(
    model: EditableModel, rows: Rows, *, beginnings_bytes: int = 0
) -> list[GenerationResult]:
    """A request for each row, all of them in flight at once."""
    return Answers(model, beginnings_bytes)(rows)


class Answers:
    """Answers rows, group after group, through one scheduler."""

    def __init__(self, model: EditableModel, beginnings_bytes: int = 0) -> None:
        self._ended: dict[int, GenerationResult] = {}
        self._numbers = itertools.count()
        self._scheduler = RowScheduler(
            model,
            self._hear,
            rows_at_once=32,
            tokens_at_once=1_000_000,
            beginnings_bytes=beginnings_bytes,
        )

    def __call__(self, rows: Rows) -> list[GenerationResult]:
        """A request for each row, all of them in flight at once."""
        ids = [next(self._numbers) for _ in rows]
        for number, row in zip(ids, rows, strict=True):
            self._scheduler.add(Generate(number, (row,)))
        while self._scheduler.is_busy:
            self._scheduler.turn()
        return [self._ended.pop(number) for number in ids]

    def _hear(self, reply: Reply) -> None:
        if isinstance(reply, Done):
            assert isinstance(reply.result, list)
            self._ended[reply.id] = reply.result[0]


def tokens(results: Sequence[GenerationResult]) -> int:
    return sum(result.completion_tokens for result in results)


def report(ratios: Sequence[Ratio]) -> str:
    header = ["", "first, tokens/s", "second, tokens/s", "ratio", "least", "most"]
    return table(
        header,
        [
            [r.what, f"{r.first:.0f}", f"{r.second:.0f}"]
            + [f"{value:.3f}" for value in (r.ratio, r.least, r.most)]
            for r in ratios
        ],
    )
