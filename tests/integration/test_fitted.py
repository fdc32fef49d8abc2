"""Fitted experts on the model that ships: verified, general, and beside generated ones."""

from __future__ import annotations

import pytest

from editing_core.editable_model import EditableModel
from editing_core.editing import EditSession
from editing_core.evaluation.edit_cases import EditCase, edit_cases
from editing_core.types import ImageArray

GIVEN = ("reliability", "text generality", "image generality", "both generalities")
LEFT_ALONE = ("text locality", "image locality", "same image, other question")

Asked = list[tuple[ImageArray | None, str]]


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    return list(edit_cases(4, seed=11))


def questions_of(cases: list[EditCase], kinds: tuple[str, ...]) -> Asked:
    return [(p.image, p.prompt) for case in cases for p in case.probes if p.kind in kinds]


def texts(session: EditSession, asked: Asked, *, edits: bool = True) -> list[str]:
    return [result.text for result in session.answers(asked, edits=edits)]


def test_fitted_edits_hold_beside_generated_ones_and_leave_the_rest_alone(
    embedded_model: EditableModel, cases: list[EditCase]
) -> None:
    session = EditSession(embedded_model)
    unedited = questions_of(cases, LEFT_ALONE)
    before = texts(session, unedited, edits=False)
    for number, case in enumerate(cases):
        session.editor = ("fitted", "liveedit")[number % 2]
        outcome = session.edit(case.request)
        assert outcome.accepted, outcome
        assert outcome.after == case.target

    made = [entry.artifact.editor for entry in session.snapshot.entries.values()]
    assert made == ["fitted", "liveedit"] * 2
    assert texts(session, questions_of(cases, GIVEN[:1])) == [case.target for case in cases]
    answers = texts(session, questions_of(cases, GIVEN))
    wanted = [case.target for case in cases for _ in GIVEN]
    assert sum(a == w for a, w in zip(answers, wanted, strict=True)) >= len(wanted) - 1
    assert texts(session, unedited) == before
