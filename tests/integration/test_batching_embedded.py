"""The model that ships, with edits that act, in one running batch: every answer as it is alone."""

from __future__ import annotations

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.experts.memory import MemoryEntry
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, ImageArray, Sampling
from tests.support.batching import Driver

QUESTION = "What is the capital?"
EDITS = {"Newhaven": "liveedit", "Old Harbour": "liveedit-paper", "Royen": "liveedit"}


def emblem(seed: int) -> ImageArray:
    return draw_sample(seed).picture.image


def test_edited_and_other_rows_answer_together_as_alone(embedded_model: EditableModel) -> None:
    """Questions that an edit answers, others about its picture, and some that none is about."""
    entries = []
    for i, (target, editor) in enumerate(EDITS.items()):
        request = EditRequest(emblem(915_200 + i), QUESTION, target)
        made = embedded_model.encode(request, editor=editor)
        entries.append(MemoryEntry.of(f"e{i}", made, request, image_digest=f"sha256:{i}"))
    snapshot = embedded_model.empty_snapshot().evolve(1, activate=entries)
    asked = [(emblem(915_200 + i), QUESTION) for i in range(5)]
    asked += [(emblem(915_200 + i), "Describe the emblem.") for i in range(2)]
    rows = [GenerationRow(q, image, Sampling(40), snapshot) for image, q in asked]
    rows += [GenerationRow(QUESTION, emblem(915_200), Sampling(40))]

    driver = Driver(embedded_model)
    for first in range(0, len(rows), 3):
        driver.enter({i: rows[i] for i in range(first, min(first + 3, len(rows)))})
        driver.step()
    together = driver.finish()

    acting = {c.edit_id for result in together.values() for c in result.decision.applied}
    assert acting == {entry.edit_id for entry in entries}
    for i, row in enumerate(rows):
        (alone,) = embedded_model.generate([row])
        assert together[i].token_ids == alone.token_ids
        assert together[i].text == alone.text
        found, expected = (each.decision.applied for each in (together[i], alone))
        assert [c.edit_id for c in found] == [c.edit_id for c in expected]
