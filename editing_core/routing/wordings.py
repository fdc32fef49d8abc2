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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.questions.known import highest_of_runs
from editing_core.questions.preference import Preference
from editing_core.recent import Recent

_KEPT_TEXTS = 50_000

if TYPE_CHECKING:
    from editing_core.questions.encoder import QuestionEncoder


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

    def of(self, edits: Sequence[int]) -> TextMatch:
        """Of these edits alone, by their places."""
        return replace(
            self,
            scores=self.scores[edits],
            excluded=self.excluded[edits],
            matched=tuple(self.matched[i] for i in edits),
        )


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
    """Compare `question` with what the edits say of themselves; at least one edit.

    Each edit is judged by itself: what other edits are compared changes nothing. Edits that say the
    same share one comparison, so that a thousand look-alikes cost little more than ten.
    """
    query = encoder.query_keys(question)
    columns: dict[str, int] = {}
    wordings = [edit.wordings for edit in edits]
    own = _Texts.of(columns, wordings)
    others = _Texts.of(columns, [edit.not_for for edit in edits])
    keys = encoder.keys(list(columns))
    cosines = (keys @ query.T).max(1)
    best = own.best(cosines)
    excluded = others.best(cosines) > best
    matched = tuple(
        texts[0] if len(texts) == 1 else texts[int(cosines[own.of_edit(i)].argmax())]
        for i, texts in enumerate(wordings)
    )
    if encoder.known is not None:
        prompts, which = np.unique(own.firsts, return_inverse=True)
        judged = encoder.known.judge(query, best, keys[prompts], which)
        best = np.maximum(best, judged.same)
        excluded |= judged.excluded
    line = encoder.line
    return TextMatch(
        scores=encoder.gate_scores(torch.from_numpy(best)),
        excluded=torch.from_numpy(excluded),
        matched=matched,
        rho=line.rho[prefer],
        lead=line.lead,
    )


@dataclass(frozen=True, slots=True)
class _Texts:
    """Some texts of each of some edits, as columns of one list of distinct texts.

    Edit i has `columns[starts[i] : starts[i + 1]]`.
    """

    columns: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, known: dict[str, int], texts: Sequence[Sequence[str]]) -> _Texts:
        """Texts that are not `known` are added to it."""
        columns = [known.setdefault(text, len(known)) for each in texts for text in each]
        starts = np.cumsum([0, *map(len, texts)])
        return cls(np.array(columns, dtype=np.int64), starts)

    @property
    def firsts(self) -> NDArray[np.int64]:
        """Each edit's first text; it must have one."""
        return self.columns[self.starts[:-1]]

    def of_edit(self, i: int) -> NDArray[np.int64]:
        return self.columns[self.starts[i] : self.starts[i + 1]]

    def best(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each edit's highest of `cosines`, float32 `[edits]`; -1 where it has no text."""
        return highest_of_runs(cosines[self.columns], np.diff(self.starts))
