"""Steps of a story: what a generator that does no work of its own may ask its caller to do.

A story yields steps, is sent what came of each, and returns its outcome, so that one account of
what to ask and what follows serves a queue before a device thread as well as this thread:

    Ask       rows to be answered       -> one `GenerationResult` a row
    Decide    rows to be routed         -> one `RoutingDecision` a row: who would act on it
    Screen    questions and edits       -> one bool a question: whether one of them may act there
    Fetch     edits, by id              -> one `Neighbour` an edit, in their order
    Refine    an expert to be refined   -> a `Refinement`; None where none can be stored
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from editing_core.experts.memory import MemoryEntry
from editing_core.generation import GenerationRow
from editing_core.refinement import Wanted
from editing_core.types import GenerationResult, ImageArray, RoutingDecision

_ROWS_AT_ONCE = 32

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """Answer these rows, all of them greedily."""

    rows: tuple[GenerationRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Decide:
    """Say who would act on these rows, as `EditableModel.decide` does."""

    rows: tuple[GenerationRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """Say at which questions one of the edits may act, as `EditableModel.may_mean` does."""

    questions: tuple[str, ...]
    edits: tuple[MemoryEntry, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring what these active edits were made of. Few at a time: pictures may be large."""

    edit_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Refine:
    """Refine the expert of `edit_id`, as `EditableModel.refine` does."""

    edit_id: str
    wanted: tuple[Wanted, ...]
    max_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """What an active edit was made of."""

    edit_id: str
    image: ImageArray
    prompt: str
    target: str


Step: TypeAlias = Ask | Decide | Screen | Fetch | Refine
# What is sent in depends on the step, which a generator's type cannot say.
Story: TypeAlias = Generator[Step, Any, Outcome]


def ask(rows: Iterable[GenerationRow]) -> Story[list[GenerationResult]]:
    """Answers to any number of rows, a bounded batch at a time."""
    asked, results = tuple(rows), list[GenerationResult]()
    for start in range(0, len(asked), _ROWS_AT_ONCE):
        results += yield Ask(asked[start : start + _ROWS_AT_ONCE])
    return results


def screened(questions: Iterable[str], edits: Sequence[MemoryEntry]) -> Story[list[bool]]:
    """Whether one of `edits` may act at each question, by its text alone."""
    asked = tuple(questions)
    if not asked or not edits:
        return [False] * len(asked)
    may_act: list[bool] = yield Screen(asked, tuple(edits))
    return may_act


def who_acts(rows: Sequence[GenerationRow]) -> Story[list[dict[str, float]]]:
    """Who takes part in answering each row, edits with their text gates: no row is answered."""
    decisions: list[RoutingDecision] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        decisions += yield Decide(tuple(rows[start : start + _ROWS_AT_ONCE]))
    return [{c.edit_id: c.text_similarity for c in d.applied} for d in decisions]
