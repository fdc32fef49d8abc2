"""What an edit reaches by its words: each question's gate, and whether it passes.

The same comparison as at a question (`wordings.match`), of one edit with many questions. Pictures
have no part in it: it holds where the picture is the edit's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editing_core.questions.preference import Preference
from editing_core.routing.wordings import match
from editing_core.types import Wordings

if TYPE_CHECKING:
    from editing_core.questions.encoder import QuestionEncoder

_AT_ONCE = 16
"""Questions that are read in a row; whoever asks the model meanwhile waits for so many at most."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One question. `gate` is compared with `rho`, both from 0 to 1; `matched` is the nearest
    wording. `is_excluded`: nearer to what the edit is not for, whatever its gate."""

    question: str
    gate: float
    matched: str
    is_excluded: bool
    applies: bool


def reach(
    encoder: QuestionEncoder, edit: Wordings, questions: Sequence[str], *, prefer: Preference
) -> list[Reached]:
    """What becomes of each of the questions, in their order."""
    found = []
    for at, question in enumerate(questions):
        if at % _AT_ONCE == 0:
            encoder.keys(questions[at : at + _AT_ONCE])  # together, which is faster; they are kept
        text = match(encoder, question, [edit], prefer=prefer)
        found.append(
            Reached(
                question=question,
                gate=float(text.scores.sigmoid()[0]),
                matched=text.matched[0],
                is_excluded=bool(text.excluded[0]),
                applies=bool(text.passes[0]),
            )
        )
    return found
