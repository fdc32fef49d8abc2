"""The model that ships: what verification spares itself changes nothing that it finds.

The same stories are told twice: as they are told to edits, screened, routed and answered from
guesses, many rows at once; and one by one, every row answered in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editing import EditOutcome, EditSession
from editing_core.heraldry.sample import draw_sample
from editing_core.routing.wordings import Worded
from editing_core.types import EditRequest, GenerationResult, RoutingDecision

SEED = 95_100


class OneByOne:
    """The model without what is spared: nothing is ruled out, guessed or run together."""

    def __init__(self, model: EditableModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def may_mean(self, questions: Sequence[str], edits: Sequence[Worded]) -> list[bool]:
        return [bool(edits)] * len(questions)

    def decide(self, rows: Sequence[GenerationRow], **_: Any) -> list[RoutingDecision]:
        return [result.decision for result in self.generate(rows)]

    def generate(self, rows: Sequence[GenerationRow]) -> list[GenerationResult]:
        return [self._model.generate([replace(row, guess=None)])[0] for row in rows]


def requests() -> list[EditRequest]:
    """Of one emblem's views: the same questions with the same answers and with others, reworded,
    with exceptions, with answers that are hard to give, and two that contradict each other."""
    first, second, third = draw_sample(SEED).questions[:3]
    views = [draw_sample(SEED, view=view).picture.image for view in range(4)]
    apart = (second.wordings[0], third.wordings[0])
    return [
        EditRequest(views[0], first.wordings[0], first.alternatives[0]),
        EditRequest(views[1], first.wordings[1], first.alternatives[0], not_for=apart),
        EditRequest(views[1], second.wordings[0], "a red dragon", rephrases=(second.wordings[1],)),
        EditRequest(views[2], first.wordings[0], "seven"),
        EditRequest(views[2], third.wordings[0], third.alternatives[0], not_for=apart[:1]),
        EditRequest(views[1], first.wordings[0], "blue"),
        EditRequest(views[3], second.wordings[1], "Nobody knows."),
        EditRequest(views[3], first.wordings[0], first.alternatives[0]),
    ]


def outcomes(model: Any) -> list[EditOutcome]:
    """Strict and reported edits by turns, each beside those that were accepted before it."""
    session = EditSession(model)
    found = []
    for number, request in enumerate(requests()):
        session.verify = "strict" if number % 2 else "report"
        found.append(session.edit(request))
    return found


def test_what_is_spared_changes_no_report(embedded_model: EditableModel) -> None:
    spared = outcomes(embedded_model)

    assert spared == outcomes(OneByOne(embedded_model))
    assert {each.accepted for each in spared} == {True, False}


def test_edits_that_words_rule_out_do_not_act(embedded_model: EditableModel) -> None:
    """Wherever an edit acts beside many others, its words alone say that it may."""
    session = EditSession(embedded_model, verify="off")
    for request in requests():
        session.edit(request)
    sample = draw_sample(SEED, view=2)
    asked = [w for question in sample.questions for w in question.held_out_wordings[:2]]
    rows = [GenerationRow(q, sample.picture.image, snapshot=session.snapshot) for q in asked]

    decisions = embedded_model.decide(rows, tokens_at_once=2048)
    acting = 0
    for entry in session.snapshot.entries.values():
        may = embedded_model.may_mean(asked, [entry])
        for decision, is_possible in zip(decisions, may, strict=True):
            acts = any(candidate.edit_id == entry.edit_id for candidate in decision.applied)
            acting += acts
            assert is_possible or not acts
    assert acting
    # What is left out of a decision that nobody reads in full changes nothing of who acts.
    for decision, result in zip(decisions[:6], embedded_model.generate(rows[:6]), strict=True):
        weights = {c.edit_id: c.weight for c in decision.applied}
        assert weights == pytest.approx({c.edit_id: c.weight for c in result.decision.applied})
        assert len(decision.candidates) <= len(result.decision.candidates)
