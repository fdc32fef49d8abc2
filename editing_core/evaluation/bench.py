"""The lifelong benchmark: edits one after another, every probe asked with all of them in force.

    for each contender and seed
        for each edit count N
            pools of N edits, each from the unedited model, every edit of it probed
            of a pool larger than `probed`, so many edits drawn at random are

There are as many pools as make up `probed` edits, below a hundred edits a quarter of that: at one
edit 25 models with one edit each, say, at a thousand one model with all thousand.
A pool that begins with the edits of the one before it goes on from there.
The unedited model's answers are what locality is judged by: computed once a seed, shared by all.

Each probed case becomes one line (`run_log`). Resumed, a run makes the edits of an unfinished pool
again and asks what is missing: cases are asked in fixed batches, so the lines are those of a run
that was never killed, but for their times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, runtime_checkable

import numpy as np

from editing_core.evaluation.contender import Contender, Query, Reply
from editing_core.evaluation.probes import PUBLISHED, EditCase, EditProbe, is_same
from editing_core.evaluation.run_log import RunLog
from editing_core.types import EditRequest

Progress = Callable[[str, int, int], None]
"""`(what, done, total)`."""
CASES_AT_ONCE = 4
FEW, FEWER_POOLS = 100, 4
"""Below so many edits, a pool's figures vary little and its batches are small: fewer of them."""
_LONGEST_FORCED = 64


class Cases(Protocol):
    """A sequence of cases, drawn or read when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> EditCase: ...


@runtime_checkable
class GivesRequests(Protocol):
    """Cases whose edit alone is cheaper than the whole case."""

    def request(self, index: int) -> EditRequest: ...


@dataclass(frozen=True, slots=True)
class Pool:
    """Edits `first` to `first + size`, applied together, of which `probed` are probed."""

    number: int
    first: int
    size: int
    probed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """Cases under one name, and the edit counts to measure at."""

    name: str
    cases: Callable[[int], Cases]
    counts: tuple[int, ...]
    probed: int

    def pools(self, count: int, seed: int, available: int) -> list[Pool]:
        """The pools of an edit count; none where there are fewer cases than that."""
        if count > available:
            return []
        probed = self.probed if count >= FEW else self.probed // FEWER_POOLS
        wanted = max(1, min(probed // count, available // count))
        pools = []
        for number in range(wanted):
            first = number * count
            inside: Sequence[int] = range(first, first + count)
            if count > self.probed:
                drawn = np.random.default_rng([seed, count, 41]).choice(
                    count, self.probed, replace=False
                )
                inside = sorted(first + int(i) for i in drawn)
            pools.append(Pool(number, first, count, tuple(inside)))
        return pools


@dataclass(slots=True)
class _Made:
    """Edits in force, `first` and those after it: whether each was accepted, and its time."""

    first: int
    accepted: list[bool]
    milliseconds: list[float]


class Measurement:
    """One suite under one seed: its cases, and what the unedited model answers to their probes."""

    def __init__(self, suite: Suite, seed: int, unedited: Sequence[Mapping[str, Any]]) -> None:
        """`unedited` are the lines of the unedited model that there are so far."""
        self.suite = suite
        self.seed = seed
        self.cases = suite.cases(seed)
        self._answers: dict[int, list[str | None]] = {}
        self._learn(record for record in unedited if self._is_mine(record))

    @property
    def pools(self) -> list[Pool]:
        """Every pool of every count, smallest count first."""
        available = len(self.cases)
        counts = self.suite.counts
        return [p for n in counts for p in self.suite.pools(n, self.seed, available)]

    def ask_unedited(self, unedited: Contender, log: RunLog, progress: Progress) -> None:
        """Answer the probes of every case that any pool probes, where it is not yet done."""
        wanted = sorted({case for pool in self.pools for case in pool.probed})
        for position, chunk in enumerate(_chunks(wanted)):
            if any(case not in self._answers for case in chunk):
                lines = self._probe(unedited, chunk, None)
                log.append(line for line in lines if line["case"] not in self._answers)
                self._learn(lines)
            progress(
                f"{unedited.name}, seed {self.seed}",
                position * CASES_AT_ONCE + len(chunk),
                len(wanted),
            )

    def measure(self, contender: Contender, log: RunLog, progress: Progress) -> None:
        """Make the edits of every unfinished pool and ask what its lines still lack."""
        pools = self.pools
        steps = _Steps(progress, f"{contender.name}, seed {self.seed}", pools)
        made: _Made | None = None
        for pool in pools:
            mine = [r for r in log.records if self._is_mine(r) and _is_of(r, pool)]
            done = {r["case"] for r in mine if r["record"] == "case"}
            if any(r["record"] == "pool" for r in mine):
                steps.take(pool.size + len(pool.probed))
            else:
                made = self._make_edits(contender, pool, made, steps)
                self._ask(contender, pool, made, done, log, steps)

    def _make_edits(
        self, contender: Contender, pool: Pool, made: _Made | None, steps: _Steps
    ) -> _Made:
        """The pool's edits in force: on from those of a pool that they begin with, or anew."""
        if made is None or made.first != pool.first or len(made.accepted) > pool.size:
            contender.reset()
            made = _Made(pool.first, [], [])
        steps.take(len(made.accepted))
        for index in range(pool.first + len(made.accepted), pool.first + pool.size):
            request = self._request(index)
            began = time.perf_counter()
            made.accepted.append(contender.edit(request))
            made.milliseconds.append((time.perf_counter() - began) * 1e3)
            steps.take(1)
        return made

    def _ask(
        self,
        contender: Contender,
        pool: Pool,
        made: _Made,
        done: set[int],
        log: RunLog,
        steps: _Steps,
    ) -> None:
        for chunk in _chunks(pool.probed):
            if not done.issuperset(chunk):
                lines = self._probe(contender, chunk, pool, made.accepted)
                log.append(line for line in lines if line["case"] not in done)
            steps.take(len(chunk))
        record = self._record("pool", contender.name, pool)
        record["refused"] = 1.0 - fmean(map(float, made.accepted))
        record["edit_ms"] = fmean(made.milliseconds)
        record["diagnostics"] = dict(contender.diagnostics())
        log.append([record])

    def _learn(self, records: Iterable[Mapping[str, Any]]) -> None:
        for record in records:
            answers = [p["answer"] if p["stopped"] else None for p in record["probes"]]
            self._answers[record["case"]] = answers

    def _request(self, index: int) -> EditRequest:
        if isinstance(self.cases, GivesRequests):
            return self.cases.request(index)
        return self.cases[index].request

    def _probe(
        self,
        contender: Contender,
        chunk: Sequence[int],
        pool: Pool | None,
        accepted: Sequence[bool] = (),
    ) -> list[dict[str, Any]]:
        """One batch: a line for each case of the chunk. Without a pool, the unedited model's."""
        cases = [(index, self.cases[index]) for index in chunk]
        queries = [Query(p.image, p.prompt) for _, case in cases for p in case.probes]
        replies = contender.answer(queries)
        before: list[str | None] = (
            [_text(reply) for reply in replies]
            if pool is None
            else [answer for index, _ in cases for answer in self._answers[index]]
        )
        probes = [(case, probe) for _, case in cases for probe in case.probes]
        expected = [
            unedited if probe.is_locality else case.expected(probe, "")
            for (case, probe), unedited in zip(probes, before, strict=True)
        ]
        kinds = [probe.kind for _, probe in probes]
        forced = _forced(contender, queries, kinds, expected)
        lines, at = [], 0
        for index, case in cases:
            record = self._record("case", contender.name, pool)
            taken = pool is None or accepted[index - pool.first]
            record |= {"case": index, "seed_of_case": case.seed, "group": case.group}
            record |= {"target": case.target, "target_group": case.target_group}
            record |= {"question": case.question_kind, "accepted": taken}
            stop = at + len(case.probes)
            record["probes"] = [
                _outcome(probe, reply, wanted, share, accepted=taken)
                for probe, reply, wanted, share in zip(
                    case.probes, replies[at:stop], expected[at:stop], forced[at:stop], strict=True
                )
            ]
            at = stop
            lines.append(record)
        return lines

    def _record(self, kind: str, name: str, pool: Pool | None) -> dict[str, Any]:
        size, number = (0, 0) if pool is None else (pool.size, pool.number)
        return {
            "record": kind,
            "editor": name,
            "suite": self.suite.name,
            "seed": self.seed,
            "edits": size,
            "pool": number,
        }

    def _is_mine(self, record: Mapping[str, Any]) -> bool:
        return bool(record["suite"] == self.suite.name and record["seed"] == self.seed)


class _Steps:
    """Tells how far one contender is: edits made and cases probed, of all that there are."""

    def __init__(self, progress: Progress, what: str, pools: Sequence[Pool]) -> None:
        self._progress = progress
        self._what = what
        self._total = sum(pool.size + len(pool.probed) for pool in pools)
        self._done = 0

    def take(self, steps: int) -> None:
        self._done += steps
        self._progress(self._what, self._done, self._total)


def _is_of(record: Mapping[str, Any], pool: Pool) -> bool:
    return bool(record["edits"] == pool.size and record["pool"] == pool.number)


def _chunks(items: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), CASES_AT_ONCE):
        yield items[start : start + CASES_AT_ONCE]


def _text(reply: Reply) -> str | None:
    return reply.text if reply.stopped else None


def _forced(
    contender: Contender,
    queries: Sequence[Query],
    kinds: Sequence[str],
    expected: Sequence[str | None],
) -> list[float | None]:
    """Token accuracy of the published kinds, where there is an answer that ended to force."""
    usable = [
        i
        for i, (kind, text) in enumerate(zip(kinds, expected, strict=True))
        if kind in PUBLISHED and text and len(text) <= 8 * _LONGEST_FORCED
    ]
    shares: list[float | None] = [None] * len(queries)
    found = contender.token_accuracy(
        [queries[i] for i in usable], [expected[i] or "" for i in usable]
    )
    for i, share in zip(usable, found, strict=True):
        shares[i] = share
    return shares


def _outcome(
    probe: EditProbe, reply: Reply, expected: str | None, share: float | None, *, accepted: bool
) -> dict[str, Any]:
    """One probe's part of a line. `expected` is None where the unedited model never stopped."""
    if expected is None:
        # Then there is no whole answer to compare: what counts is that it still does not end.
        right = not reply.stopped
    else:
        right = reply.stopped and is_same(reply.text, expected)
    if not probe.is_locality:
        right = right and accepted
    return {
        "kind": probe.kind,
        "answer": reply.text,
        "stopped": reply.stopped,
        "expected": expected,
        "right": right,
        "locality": probe.is_locality,
        "token_accuracy": share,
        "fired": reply.fired,
        "survivors": reply.survivors,
        "ms": round(reply.milliseconds, 3),
    }
