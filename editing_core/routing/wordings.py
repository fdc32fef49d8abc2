"""Which edits does a question mean, by its text alone? Keys of the question encoder decide.

    wordings    an edit's prompt and its rephrases       the nearest one speaks for the edit
    not_for     questions that the edit must leave alone
                                                         the edit is out where one is nearer
    known       what is known of prompt and question, see `questions/known.py`
                                                         may speak for the edit, or put it out

Nothing of a picture or a model is read, so a query that means no edit never meets a hook.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from editing_core.questions.encoder import QuestionEncoder
from editing_core.questions.preference import Preference
from editing_core.recent import Recent

_KEPT_TEXTS = 50_000


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
    nearer than every wording, or the question is known to be another; `matched` the wording of
    each edit that is nearest. `rho` and `lead` are those of `GateLine`.
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


class Comparer:
    """`match` for many rows: their questions are read together, and answers to recent ones kept."""

    def __init__(self, encoder: QuestionEncoder, *, prefer: Preference) -> None:
        self._encoder = encoder
        self._prefer = prefer
        self._recent: Recent[Hashable, TextMatch] = Recent(_KEPT_TEXTS)

    def __call__(self, rows: Sequence[tuple[str, Sequence[Worded]]]) -> list[TextMatch]:
        """How the question of each row fits the edits beside it."""
        names = [(text, tuple((e.wordings, e.not_for) for e in edits)) for text, edits in rows]
        found = [self._recent.get(name) for name in names]
        new = [row for row, known in zip(rows, found, strict=True) if known is None]
        self._encoder.read_queries([question for question, _ in new])
        made = []
        for name, known, (question, edits) in zip(names, found, rows, strict=True):
            if known is None:
                known = match(self._encoder, question, edits, prefer=self._prefer)
                texts = sum(len(edit.wordings) + len(edit.not_for) for edit in edits)
                self._recent.put(name, known, 1 + texts)
            made.append(known)
        return made

    def forget(self) -> None:
        """Compare every question again, as if it were new."""
        self._recent.clear()


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
    at, firsts = 0, list[int]()
    for i, edit in enumerate(edits):
        first, at = at, at + len(edit.wordings) + len(edit.not_for)
        firsts.append(first)
        own, others = np.split(cosines[first:at], [len(edit.wordings)])
        nearest = int(own.argmax())
        best[i] = own[nearest]
        matched.append(edit.wordings[nearest])
        excluded[i] = others.max(initial=-1.0) > own[nearest]
    if encoder.known is not None:
        judged = encoder.known.judge(query, best, keys[np.array(firsts)])
        best = np.maximum(best, judged.same)
        excluded |= judged.excluded
    line = encoder.line
    return TextMatch(
        scores=encoder.gate_scores(torch.from_numpy(best)),
        excluded=torch.from_numpy(excluded),
        matched=tuple(matched),
        rho=line.rho[prefer],
        lead=line.lead,
    )
