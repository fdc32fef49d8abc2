"""Many edits of one question on near pictures: every answer is one edit's, or the base's."""

from __future__ import annotations

import pytest

from editing_core.editable_model import EditableModel
from editing_core.editing import EditSession
from editing_core.evaluation.probes import is_same
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, ImageArray

QUESTIONS = (
    "What is the capital?",
    "What is the capital of the place with this emblem?",
    "Capital city?",
    "Who is the mayor of the capital?",
    "Which river flows through this place?",
)
TARGETS = ("Royen", "Golden Delicious", "Pinecone", "Lactose", "Marbury", "Old Harbour", "Vell")


def _view(number: int) -> ImageArray:
    return draw_sample(915_100, view=number).picture.image


def _asked(model: EditableModel, *, edits: int, questions: int) -> tuple[int, list[str]]:
    """The most edits that one picture met, and every answer that is nobody's."""
    session = EditSession(model, verify="off")
    for number in range(edits):
        prompt = QUESTIONS[number % 2]
        session.edit(EditRequest(_view(number), prompt, TARGETS[number % len(TARGETS)]))
    most, strange = 0, list[str]()
    for start in range(0, questions, 25):
        rows = [
            (_view(100 + i % 40), QUESTIONS[i % len(QUESTIONS)]) for i in range(start, start + 25)
        ]
        base = session.answers(rows, edits=False)
        for before, after in zip(base, session.answers(rows), strict=True):
            most = max(most, len(after.decision.candidates))
            known = (before.text, *TARGETS)
            if not any(is_same(after.text, text) for text in known):
                strange.append(after.text)
    return most, strange


def test_answers_are_never_blended(embedded_model: EditableModel) -> None:
    most, strange = _asked(embedded_model, edits=12, questions=50)
    assert most > 1
    assert strange == []


@pytest.mark.slow
def test_a_thousand_answers_with_fifty_survivors_are_never_blended(
    embedded_model: EditableModel,
) -> None:
    most, strange = _asked(embedded_model, edits=50, questions=1000)
    assert most >= 40
    assert strange == []
