"""Which edits does a question mean, by its text alone? Keys of the question encoder decide.

    wordings    an edit's prompt and its rephrases       the nearest one speaks for the edit
    not_for     questions that the edit must leave alone, its own and those that are known to be
                confused with its prompt                 the edit is out where one is nearer

Nothing of a picture or a model is read, so a query that means no edit never meets a hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from editing_core.questions.encoder import QuestionEncoder
from editing_core.questions.preference import Preference


class Worded(Protocol):
    """What is read of an edit: `wordings` is never empty, and begins with its prompt."""

    @property
    def wordings(self) -> tuple[str, ...]: ...

    @property
    def not_for(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, eq=False)
class TextMatch:
    """How well one question fits each of some edits, in their order.

    `scores` float32 `[edits]`, before the sigmoid; `excluded` bool `[edits]` where a `not_for` is
    nearer than every wording; `matched` the wording of each edit that is nearest. `rho` and `lead`
    are those of `GateLine`.
    """

    scores: Tensor
    excluded: Tensor
    matched: tuple[str, ...]
    rho: float
    lead: float

    @property
    def passes(self) -> Tensor:
        """Edits that the question may mean, bool `[edits]`."""
        return (self.scores.sigmoid() >= self.rho) & ~self.excluded


def match(
    encoder: QuestionEncoder, question: str, edits: Sequence[Worded], *, prefer: Preference
) -> TextMatch:
    """Compare `question` with what the edits say of themselves; at least one edit."""
    texts = [text for edit in edits for text in (*edit.wordings, *edit.not_for)]
    query = encoder.query_keys(question)
    keys = encoder.keys(texts)
    cosines = (keys @ query.T).max(1)
    best = np.empty(len(edits), dtype=np.float32)
    excluded = np.zeros(len(edits), dtype=np.bool_)
    matched: list[str] = []
    at = 0
    for i, edit in enumerate(edits):
        first, at = at, at + len(edit.wordings) + len(edit.not_for)
        own, others = np.split(cosines[first:at], [len(edit.wordings)])
        nearest = int(own.argmax())
        best[i] = own[nearest]
        matched.append(edit.wordings[nearest])
        implied = (encoder.not_for(keys[first]) @ query.T).max(1, initial=-1.0)
        nearest_other = max(others.max(initial=-1.0), implied.max(initial=-1.0))
        excluded[i] = nearest_other > own[nearest]
    line = encoder.line
    return TextMatch(
        scores=encoder.gate_scores(torch.from_numpy(best)),
        excluded=torch.from_numpy(excluded),
        matched=tuple(matched),
        rho=line.rho[prefer],
        lead=line.lead,
    )
