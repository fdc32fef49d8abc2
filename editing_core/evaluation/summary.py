"""From the lines of a run to its figures: one value per contender, suite, edit count and kind.

Exact match and token accuracy are separate figures and are never averaged with each other. A
figure's `value` is over all its probes, whichever seed drew them; `standard_error` is of that mean,
taking probes as independent; `interval` is of the mean over seeds, Student's t at 95 percent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from editing_core.evaluation.lineup import UNEDITED
from editing_core.evaluation.probes import KINDS, RELIABILITY
from editing_core.evaluation.run_log import RECORDS, read_records

EXACT = "exact match of free greedy generation, stop token included"
FORCED = "teacher-forced token accuracy"
GROUPS = "whole groups"
"""The kind of the figure that counts groups all of whose edits give their own answer."""
_BY_TARGET = (RELIABILITY, "both generalities")
# Two-sided 95 percent points of Student's t for 1, 2, ... degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure. `per_seed` holds each seed's mean; `interval` is None with a single seed."""

    editor: str
    suite: str
    edits: int
    kind: str
    protocol: str
    value: float
    count: int
    standard_error: float
    per_seed: tuple[float, ...]
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What one contender took at one edit count, and what it searched and fired.

    Times are means in milliseconds on the machine of the run. `survivors` is edits per question
    that the search by picture let through, `false_fires` the share of locality questions that
    fired any edit; None where a contender counts no such thing. `diagnostics` are its own.
    """

    editor: str
    suite: str
    edits: int
    refused: float
    edit_ms: float
    answer_ms: float
    survivors: float | None
    false_fires: float | None
    diagnostics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """All figures of a run. `by_target` are exact matches of some kinds, target group by group."""

    figures: tuple[Measured, ...]
    costs: tuple[Cost, ...]
    by_target: tuple[Measured, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "figures": [asdict(figure) for figure in self.figures],
            "costs": [asdict(cost) for cost in self.costs],
            "by_target": [asdict(figure) for figure in self.by_target],
        }


def read_run(folder: Path, order: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every line of a run, the unedited model's first, then `order`, then any others."""
    paths = sorted((folder / RECORDS).glob("*.jsonl"))
    found: dict[str, list[dict[str, Any]]] = {}
    for record in (record for path in paths for record in read_records(path)):
        found.setdefault(record["editor"], []).append(record)
    names = dict.fromkeys(name for name in (UNEDITED, *order, *found) if name in found)
    return [record for name in names for record in found[name]]


def summarise(records: Sequence[Mapping[str, Any]]) -> Summary:
    """The figures of a run's lines, contenders in the order of their first line."""
    cases, pools = _by_place(records)
    figures = [
        figure
        for (editor, suite, edits), lines in cases.items()
        for figure in _figures(editor, suite, edits, lines)
    ]
    costs = [_cost(*place, lines, pools.get(place, [])) for place, lines in cases.items()]
    by_target = [figure for place, lines in cases.items() for figure in _targets(*place, lines)]
    return Summary(tuple(figures), tuple(costs), tuple(by_target))


Place = tuple[str, str, int]
Lines = list[Mapping[str, Any]]


def _by_place(
    records: Iterable[Mapping[str, Any]],
) -> tuple[dict[Place, Lines], dict[Place, Lines]]:
    """Lines by contender, suite and edit count. The unedited model stands at every count."""
    cases: dict[Place, Lines] = defaultdict(list)
    pools: dict[Place, Lines] = defaultdict(list)
    probed: dict[tuple[str, int], set[tuple[int, int]]] = defaultdict(set)
    unedited: Lines = []
    for record in records:
        place = (record["editor"], record["suite"], record["edits"])
        if record["record"] == "pool":
            pools[place].append(record)
        elif record["editor"] == UNEDITED:
            unedited.append(record)
        else:
            cases[place].append(record)
            probed[record["suite"], record["edits"]].add((record["seed"], record["case"]))
    base: dict[Place, Lines] = {}
    for (suite, edits), wanted in sorted(probed.items()):
        base[UNEDITED, suite, edits] = [
            r for r in unedited if r["suite"] == suite and (r["seed"], r["case"]) in wanted
        ]
    if not probed:
        for record in unedited:
            base.setdefault((UNEDITED, record["suite"], 0), []).append(record)
    return base | cases, pools


def _figures(editor: str, suite: str, edits: int, lines: Lines) -> Iterator[Measured]:
    exact: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    forced: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    groups: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for line in lines:
        for probe in line["probes"]:
            exact[probe["kind"]][line["seed"]].append(float(probe["right"]))
            if probe["token_accuracy"] is not None:
                forced[probe["kind"]][line["seed"]].append(probe["token_accuracy"])
            if line["group"] is not None and probe["kind"] == RELIABILITY:
                groups[line["seed"], line["group"]].append(probe["right"])
    if any(len(members) > 1 for members in groups.values()):
        for (seed, _), members in groups.items():
            exact[GROUPS][seed].append(float(all(members)))
    for protocol, found in ((EXACT, exact), (FORCED, forced)):
        for kind in sorted(found, key=_rank):
            yield _measured(editor, suite, edits, kind, protocol, found[kind])


def _targets(editor: str, suite: str, edits: int, lines: Lines) -> Iterator[Measured]:
    """Whether what can be said depends on what is to be said: nothing, if all targets are alike."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for kind in _BY_TARGET:
        for line in lines:
            for probe in line["probes"]:
                if probe["kind"] == kind:
                    name = f"{kind}, {line['target_group']}"
                    found[name][line["seed"]].append(float(probe["right"]))
    groups = {line["target_group"] for line in lines}
    if len(groups) > 1 and editor != UNEDITED:
        for name, by_seed in found.items():
            yield _measured(editor, suite, edits, name, EXACT, by_seed)


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _measured(
    editor: str,
    suite: str,
    edits: int,
    kind: str,
    protocol: str,
    by_seed: Mapping[int, Sequence[float]],
) -> Measured:
    values = [value for seed in sorted(by_seed) for value in by_seed[seed]]
    means = tuple(fmean(by_seed[seed]) for seed in sorted(by_seed))
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Measured(
        editor=editor,
        suite=suite,
        edits=edits,
        kind=kind,
        protocol=protocol,
        value=fmean(values),
        count=len(values),
        standard_error=error,
        per_seed=means,
        interval=_interval(means),
    )


def _interval(means: Sequence[float]) -> tuple[float, float] | None:
    if len(means) < 2:
        return None
    student = _STUDENT[min(len(means) - 1, len(_STUDENT)) - 1]
    half = student * stdev(means) / math.sqrt(len(means))
    return fmean(means) - half, fmean(means) + half


def _cost(editor: str, suite: str, edits: int, lines: Lines, pools: Lines) -> Cost:
    probes = [probe for line in lines for probe in line["probes"]]
    survivors = [p["survivors"] for p in probes if p["survivors"] is not None]
    fired = [p["fired"] > 0 for p in probes if p["locality"] and p["fired"] is not None]
    names = {name for pool in pools for name in pool["diagnostics"]}
    return Cost(
        editor=editor,
        suite=suite,
        edits=edits,
        refused=_mean([pool["refused"] for pool in pools]),
        edit_ms=_mean([pool["edit_ms"] for pool in pools]),
        answer_ms=_mean([probe["ms"] for probe in probes]),
        survivors=fmean(survivors) if survivors else None,
        false_fires=fmean(map(float, fired)) if fired else None,
        diagnostics={
            name: _mean([pool["diagnostics"].get(name, 0.0) for pool in pools])
            for name in sorted(names)
        },
    )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
