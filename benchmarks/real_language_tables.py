"""Figures of the proving ground, beside the unedited model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.answering import Answer, Made
from benchmarks.real_language_cases import (
    CONFUSABLE,
    OTHER,
    OTHER_FILE,
    RELIABILITY,
    TEXT_ONLY,
    Asked,
    Wanted,
)
from benchmarks.report import table
from editing_core.evaluation.report import Figure, rate
from editing_core.identity import slot_prompt

ROUTED = "everyday wordings, routed to the edit"
RIGHT_WHEN_ROUTED = "everyday wordings, right where routed"
EVERYDAY = "everyday wordings"


@dataclass(frozen=True, slots=True)
class Result:
    """One question and its answers; `edit_id` is None where its edit was refused.

    `before` is None where the unedited model was not asked (`Asked.is_compared`).
    """

    asked: Asked
    edit_id: str | None
    before: Answer | None
    after: Answer

    @property
    def fires(self) -> bool:
        """Whether any edit acted."""
        return any(c.outcome == "applied" for c in self.after.considered)

    @property
    def is_routed(self) -> bool:
        """Whether its own edit acted."""
        return self.outcome == "applied"

    @property
    def outcome(self) -> str:
        """What became of its own edit: see `Candidate`; `refused`, or `another picture`."""
        if self.edit_id is None:
            return "refused"
        own = [c.outcome for c in self.after.considered if c.edit_id == self.edit_id]
        return own[0] if own else "another picture"

    @property
    def is_kept(self) -> bool:
        """Word for word; of a question that was compared."""
        return self.before is not None and self.after.is_same(self.before)

    def says_target(self, answer: Answer) -> bool:
        """Whether the answer is the edit's, and ended."""
        return answer.stopped and slot_prompt(answer.text) == slot_prompt(self.asked.edit.target)

    @property
    def is_hit(self) -> bool:
        return self.edit_id is not None and self.says_target(self.after)

    @property
    def is_right(self) -> bool:
        """Whether it gives the edit's answer, or has kept its own."""
        is_own = self.asked.is_everyday or self.asked.kind in (RELIABILITY, OTHER_FILE)
        return self.is_hit if is_own else self.is_kept

    def as_json(self) -> dict[str, Any]:
        return {
            "edit": self.edit_id,
            "topic": self.asked.edit.topic.name,
            "kind": self.asked.kind,
            "question": self.asked.question.prompt,
            "target": self.asked.edit.target,
            "before": None if self.before is None else self.before.text,
            "after": self.after.text,
            "outcome": self.outcome,
            "fires": self.fires,
            "hit": self.is_hit,
            "kept": None if self.before is None else self.is_kept,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, and what the unedited model has in its place."""

    figure: Figure
    unedited: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self.figure) | {"unedited": self.unedited}


def rows_of(edits: Sequence[Wanted], made: Sequence[Made], results: Sequence[Result]) -> list[Row]:
    """The table's rows: hits by kind of wording, then what must not change."""
    refused = Counter(one.refusal for one in made if one.refusal is not None)
    everyday = [r for r in results if r.asked.is_everyday]
    routed = [r for r in everyday if r.is_routed]
    missed = Counter(r.outcome for r in everyday if not r.is_routed)
    kinds = dict.fromkeys(kind for edit in edits for kind in edit.topic.wordings)

    def of(kind: str) -> list[Result]:
        return [r for r in results if r.asked.kind == kind]

    rows = [
        _hits(RELIABILITY, of(RELIABILITY), goal=0.99),
        _hits(EVERYDAY, everyday, goal=0.85),
        *(_hits(f"- {kind}", of(kind)) for kind in kinds),
        _row(ROUTED, everyday, lambda r: r.is_routed, 0.0),
        *(_of_outcome(outcome, everyday) for outcome in sorted(missed)),
        _hits(RIGHT_WHEN_ROUTED, routed),
        _hits(OTHER_FILE, of(OTHER_FILE)),
        _row(
            f"{CONFUSABLE}: fires", of(CONFUSABLE), lambda r: r.fires, 0.0, goal=0.08, better="low"
        ),
        _row(f"{CONFUSABLE}: kept", of(CONFUSABLE), lambda r: r.is_kept, 1.0),
        _row(f"{OTHER}: kept", of(OTHER), lambda r: r.is_kept, 1.0, goal=0.95),
        _row(f"{TEXT_ONLY}: kept", of(TEXT_ONLY), lambda r: r.is_kept, 1.0, goal=1.0),
    ]
    rows += [
        Row(rate(f"edits refused: {code}", [one.refusal == code for one in made]), None)
        for code in refused
    ]
    return [row for row in rows if row.figure.count]


def rows_as_markdown(rows: Sequence[Row]) -> str:
    """One line for each row."""

    def line(row: Row) -> list[str]:
        figure = row.figure
        sign = ">=" if figure.better == "high" else "<="
        goal = "" if figure.goal is None else f"{sign} {figure.goal:g}"
        reached = {None: "", True: "yes", False: "no"}[figure.is_reached]
        unedited = "" if row.unedited is None else f"{row.unedited:.3f}"
        return [figure.name, f"{figure.value:.3f}", unedited, str(figure.count), goal, reached]

    head = ["figure", "edited", "unedited", "probes", "goal", "reached"]
    return table(head, [line(row) for row in rows])


def _hits(name: str, results: Sequence[Result], **marks: Any) -> Row:
    before = [r.says_target(r.before) for r in results if r.before is not None]
    unedited = rate("", before).value if before else None
    return Row(rate(name, [r.is_hit for r in results], **marks), unedited)


def _of_outcome(outcome: str, results: Sequence[Result]) -> Row:
    return _row(f"- not routed: {outcome}", results, lambda r: r.outcome == outcome, None)


def _row(
    name: str,
    results: Sequence[Result],
    judge: Callable[[Result], bool],
    unedited: float | None,
    **marks: Any,
) -> Row:
    return Row(rate(name, [judge(r) for r in results], **marks), unedited)
