"""Where an edit will apply: questions near it, told apart by its words as the router will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editing_core.identity import slot_prompt
from editing_core.questions.neighbours import neighbours
from editing_core.routing.reach import Reached, reach
from editing_core.types import Wordings

if TYPE_CHECKING:
    from editing_core.editable_model import EditableModel

__all__ = ["Reach", "Reached", "look"]


@dataclass(frozen=True, slots=True)
class Reach:
    """`asked` in the order of the request; `will` by gate, the surest first; `will_not` too, so
    that what comes nearest stands on top."""

    asked: list[Reached]
    will: list[Reached]
    will_not: list[Reached]


def look(
    model: EditableModel,
    wordings: Sequence[str],
    not_for: Sequence[str],
    *,
    questions: Sequence[str],
    limit: int,
) -> Reach:
    """What becomes of `questions`, and of up to `limit` others near the first of the wordings.

    On any thread, blocking. The model has a question encoder.
    """
    encoder, prefer = model.questions, model.router.thresholds.prefer
    assert encoder is not None
    edit = Wordings(tuple(wordings), tuple(not_for))
    own = set(map(slot_prompt, (*wordings, *not_for)))
    near = [text for text in neighbours(encoder, wordings[0]) if slot_prompt(text) not in own]
    found = reach(encoder, edit, near, prefer=prefer)
    found.sort(key=lambda each: -each.gate)
    return Reach(
        asked=reach(encoder, edit, questions, prefer=prefer),
        will=[each for each in found if each.applies][:limit],
        will_not=[each for each in found if not each.applies][:limit],
    )
