"""One row of a running batch, and what is heard of it after each step."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from editing_core.generation import Writer
from editing_core.types import GenerationResult, RoutingDecision

Key = TypeVar("Key", bound=Hashable)
"""A caller's name for a row; no two rows of a batch have the same."""


@dataclass(slots=True, eq=False)
class RunningRow(Generic[Key]):
    """A row between two steps.

    `token` is its newest, which goes in at the next step, number `step`: 2 for the first generated
    one.
    """

    key: Key
    writer: Writer
    decision: RoutingDecision
    token: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class RowNews(Generic[Key]):
    """What one step brought for the row `key`: text that became certain, and its end if it ended.

    A row ends with a `result` or with an `error`, never with both.
    """

    key: Key
    text: str = ""
    result: GenerationResult | None = None
    error: Exception | None = None

    @property
    def is_last(self) -> bool:
        return self.result is not None or self.error is not None
