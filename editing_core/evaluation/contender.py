"""The contract of a contender: one way to edit a model, as the benchmark sees it.

A contender takes edits one after another and answers freely with all of them in force. The
benchmark knows nothing else of it, so a fine-tuned layer, a prompt memory and LiveEdit stand in the
same table under the same protocol.

    contender.reset()
    contender.edit(request)            one after another, never undone
    contender.answer(queries)          at any time, any number of times; changes nothing
    contender.token_accuracy(...)      likewise

Determinism: after `reset`, the same edits give the same answers; resuming a run relies on it.
A contender runs on one thread and seeds whatever it draws. It never leaves the base model changed:
what an edit changes is in force inside `answer` and `token_accuracy` only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from editing_core.types import EditRequest, ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One question: a picture or none, and what is asked."""

    image: ImageArray | None
    prompt: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One free greedy answer.

    `text` is trimmed and without special tokens; `stopped` says that the stop token ended it, not
    the limit of `MAX_ANSWER_TOKENS`. `survivors` counts the edits that the search by picture let
    through, `fired` those that took part in the answer; None where a contender has no such thing.
    `milliseconds` is the time of the whole batch divided by its rows.
    """

    text: str
    stopped: bool
    fired: int | None = None
    survivors: int | None = None
    milliseconds: float = 0.0


MAX_ANSWER_TOKENS = 80
"""Free answers are cut here. The longest target, 64 tokens and the stop token, fits."""


class Contender(ABC):
    """See the module's docstring."""

    name: str

    @abstractmethod
    def reset(self) -> None:
        """Back to the unedited model."""

    @abstractmethod
    def edit(self, request: EditRequest) -> bool:
        """Make one edit beside the earlier ones; False when it was refused and changed nothing.

        Raises `RequestError` only on input that no editor could take.
        """

    @abstractmethod
    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Free greedy answers, batched, in order, with every edit so far in force."""

    @abstractmethod
    def token_accuracy(self, queries: Sequence[Query], targets: Sequence[str]) -> list[float]:
        """Teacher-forced, for comparison with published tables; per query, 0 to 1.

        The share of the target's tokens, its stop token included, that are the arg max at their
        place given the true ones before. Never averaged with exact match.
        """

    def diagnostics(self) -> Mapping[str, float]:
        """What else is worth a column, as of now: refinement share and steps, memory, ..."""
        return {}
