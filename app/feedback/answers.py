"""The answers that were given last, so that somebody may still say something of them.

In memory only: what nobody reports is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_OVERHEAD = 1024
"""Bytes counted for each answer beside its texts."""


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """`image` is the request's own field: base64, or a data URI. `applied`: the edits in it."""

    id: str
    prompt: str
    image: str | None
    text: str
    version: int
    applied: tuple[str, ...]

    @property
    def size(self) -> int:
        """In bytes, roughly."""
        return _OVERHEAD + 4 * (len(self.prompt) + len(self.text)) + len(self.image or "")


class RecentAnswers:
    """The newest answers, as many as fit into `limit` bytes; 0 keeps none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, KeptAnswer] = OrderedDict()

    def remember(self, answer: KeptAnswer) -> None:
        if answer.size > self._limit:
            return
        self._kept[answer.id] = answer
        self._size += answer.size
        while self._size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size

    def get(self, answer_id: str) -> KeptAnswer | None:
        return self._kept.get(answer_id)
