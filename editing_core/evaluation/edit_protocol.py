"""Applies edits one after another, then asks every probe: what holds, and what is left alone.

Works through two functions, so that the same protocol runs on a model in this process and on a
server over HTTP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editing_core.evaluation.edit_cases import GENERALITY, LOCALITY, EditCase
from editing_core.evaluation.report import Figure, rate
from editing_core.types import ImageArray

Edit = Callable[[ImageArray, str, str], bool]
"""`(image, prompt, target)` -> whether the edit was accepted."""
Ask = Callable[[ImageArray | None, str, bool], str]
"""`(image, prompt, with edits)` -> the free greedy answer; one that did not stop is marked."""
Progress = Callable[[str, int, int], None]

UNFINISHED = "\x00unfinished"
"""Appended by an `Ask` to an answer that ran into the token limit: it can match nothing."""


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """One asked probe."""

    case: EditCase
    kind: str
    answer: str
    unedited: str
    accepted: bool

    @property
    def is_right(self) -> bool:
        """New answer for generality probes, the unedited answer for locality probes.

        A refused edit is a miss on what it should have changed.
        """
        if self.kind in GENERALITY:
            return self.accepted and self.answer == self.case.target
        return self.answer == self.unedited


def run_protocol(
    cases: Sequence[EditCase], *, edit: Edit, ask: Ask, progress: Progress | None = None
) -> list[ProbeOutcome]:
    """Apply every case's edit in order, then ask every probe with all of them in force."""
    unedited: list[list[str]] = []
    for number, case in enumerate(cases):
        unedited.append([ask(probe.image, probe.prompt, False) for probe in case.probes])
        if progress:
            progress("unedited answers", number + 1, len(cases))
    accepted = []
    for number, case in enumerate(cases):
        accepted.append(edit(case.image, case.prompt, case.target))
        if progress:
            progress("edits", number + 1, len(cases))
    outcomes = []
    for number, case in enumerate(cases):
        for probe, before in zip(case.probes, unedited[number], strict=True):
            answer = ask(probe.image, probe.prompt, True)
            outcomes.append(ProbeOutcome(case, probe.kind, answer, before, accepted[number]))
        if progress:
            progress("probes", number + 1, len(cases))
    return outcomes


def figures_of(outcomes: Sequence[ProbeOutcome], goals: dict[str, float]) -> list[Figure]:
    """A figure for each kind of probe, the unedited row of reliability, refusals and targets."""
    by_kind: dict[str, list[bool]] = defaultdict(list)
    by_target: dict[str, list[bool]] = defaultdict(list)
    unedited, refused = [], []
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome.is_right)
        if outcome.kind == "reliability":
            by_target[outcome.case.target_group].append(outcome.is_right)
            unedited.append(outcome.unedited == outcome.case.target)
            refused.append(not outcome.accepted)
    return [
        rate("unedited model gives the target", unedited),
        *(rate(kind, by_kind[kind], goal=goals.get(kind)) for kind in (*GENERALITY, *LOCALITY)),
        rate("edits refused", refused),
        *(rate(f"reliability, target: {group}", hits) for group, hits in sorted(by_target.items())),
    ]
