"""Figures of the flag runs, beside the unedited model's, by fact, with the causes of misses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from benchmarks.flag_protocol import RELIABILITY, Probed, Run
from benchmarks.flags import look_alike_pairs
from benchmarks.report import table
from editing_core.evaluation.report import Figure, rate

Item = TypeVar("Item")

GOALS: Mapping[str, float] = {
    RELIABILITY: 0.98,
    "text generality": 0.85,
    "image generality": 0.85,
    "image locality": 0.97,
    "text locality": 1.0,
    "other flags unchanged": 0.90,
}
LOOK_ALIKES = "reliability, flags of look-alike pairs"
BOTH_OF_A_PAIR = "reliability, both flags of a look-alike pair"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure with edits and with editing off, and its value for each fact."""

    figure: Figure
    off: float
    by_fact: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self.figure),
            "standard_error": self.figure.standard_error,
            "reached": self.figure.is_reached,
            "editing_off": self.off,
            "by_fact": dict(self.by_fact),
        }


def rows_of(run: Run) -> list[Row]:
    """One row for each kind of probe, in the order asked; look-alike pairs apart as well."""
    kinds = dict.fromkeys(probe.kind for probe in run.probed)
    rows = [_row(kind, [p for p in run.probed if p.kind == kind]) for kind in kinds]
    own = {p.edit.question: p for p in run.probed if p.kind == RELIABILITY}
    pairs = [(own[a.question], own[b.question]) for a, b in look_alike_pairs(run.edits)]
    if pairs:
        members = list({id(p): p for pair in pairs for p in pair}.values())
        both = rate(BOTH_OF_A_PAIR, [a.hit and b.hit for a, b in pairs])
        off = rate("", [a.off and b.off for a, b in pairs]).value
        facts = _by_fact(pairs, lambda pair: pair[0].edit.fact, _all_hit)
        rows += [_row(LOOK_ALIKES, members), Row(both, off, facts)]
    return rows


def _row(name: str, probes: Sequence[Probed]) -> Row:
    figure = rate(name, [probe.hit for probe in probes], goal=GOALS.get(name))
    off = rate("", [probe.off for probe in probes]).value
    return Row(figure, off, _by_fact(probes, lambda p: p.edit.fact, lambda p: p.hit))


def _all_hit(probes: Iterable[Probed]) -> bool:
    return all(probe.hit for probe in probes)


def _by_fact(
    items: Sequence[Item], fact: Callable[[Item], str], hit: Callable[[Item], bool]
) -> dict[str, float]:
    facts = sorted({fact(item) for item in items})
    return {
        name: rate("", [hit(item) for item in items if fact(item) == name]).value for name in facts
    }


def refusals(run: Run) -> dict[str, int]:
    """Refused edits by error code."""
    return dict(Counter(made.refusal for made in run.made if made.refusal).most_common())


def refinement(run: Run) -> dict[str, float]:
    """How many accepted edits needed gradient steps, and how many steps those took."""
    steps = [made.refinement_steps for made in run.made if made.edit_id is not None]
    refined = [count for count in steps if count]
    return {
        "accepted": len(steps),
        "refined": len(refined),
        "mean steps of the refined": sum(refined) / len(refined) if refined else 0.0,
    }


def causes(run: Run) -> dict[str, dict[str, int]]:
    """Misses of each kind of probe, counted by cause."""
    found: dict[str, Counter[str]] = {}
    for probe in run.probed:
        if probe.cause is not None:
            found.setdefault(probe.kind, Counter())[probe.cause] += 1
    return {kind: dict(counted.most_common()) for kind, counted in found.items()}


def rows_as_markdown(rows: Sequence[Row]) -> str:
    """The table that people read."""
    facts = sorted({fact for row in rows for fact in row.by_fact})
    header = ["figure", "with edits", "±", "editing off", "probes", "goal", "reached", *facts]
    lines = []
    for row in rows:
        figure = row.figure
        reached = {None: "", True: "yes", False: "no"}[figure.is_reached]
        lines.append(
            [
                figure.name,
                f"{figure.value:.4f}",
                f"{figure.standard_error:.4f}",
                f"{row.off:.4f}",
                str(figure.count),
                "" if figure.goal is None else f">= {figure.goal:g}",
                reached,
                *(f"{row.by_fact[fact]:.3f}" if fact in row.by_fact else "" for fact in facts),
            ]
        )
    return table(header, lines)


def made_as_markdown(run: Run) -> str:
    """Refusals by code, and refinement."""
    refused = ", ".join(f"`{code}`: {count}" for code, count in refusals(run).items()) or "none"
    counted = ", ".join(f"{name}: {value:g}" for name, value in refinement(run).items())
    return f"Edits: {len(run.made)}; refused: {refused}; {counted}."


def causes_as_markdown(run: Run) -> str:
    """A line for each kind and cause."""
    lines = [
        [kind, cause, str(count)]
        for kind, counted in causes(run).items()
        for cause, count in counted.items()
    ]
    return table(["probe", "cause of the miss", "misses"], lines) if lines else "No misses."


def refused(run: Run) -> list[dict[str, Any]]:
    """Every refused edit, for programs: what it answered at last, and what it would change."""
    return [
        {
            "record": edit.record.index,
            "country": edit.country,
            "fact": edit.fact,
            "target": edit.target,
            "code": made.refusal,
            "after": made.after,
            "damaged": list(made.damaged),
        }
        for edit, made in zip(run.edits, run.made, strict=True)
        if made.edit_id is None
    ]


def misses(run: Run) -> list[dict[str, Any]]:
    """Every miss, for programs."""
    return [
        {
            "kind": probe.kind,
            "record": probe.edit.record.index,
            "country": probe.edit.country,
            "fact": probe.edit.fact,
            "picture": probe.question.picture,
            "prompt": probe.question.prompt,
            "expected": probe.expected,
            "answer": probe.answer,
            "cause": probe.cause,
            "note": probe.note,
        }
        for probe in run.probed
        if not probe.hit
    ]
