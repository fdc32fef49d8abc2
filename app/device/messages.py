"""What the service and the device say to each other: frozen values that can be pickled.

A request has an `id` of its sender's choosing; every reply names the request it belongs to. The
last reply to a request is `Done` or `Failed`, and one that was cancelled may get none. `Aside`s are
answered whatever the device does; all others wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.refinement import Wanted
from editing_core.types import EditArtifact, EditRequest, ImageArray, Wordings


@dataclass(frozen=True, slots=True, eq=False)
class Generate:
    """Answer these rows. `Text` as it comes; `Done` with a `GenerationResult` a row.

    Those that are asked for an edit's sake, `for_edit`, come behind what people ask.
    """

    id: int
    rows: tuple[GenerationRow, ...]
    for_edit: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Decide:
    """Find out who would act on these rows. `Done` with a `RoutingDecision` a row."""

    id: int
    rows: tuple[GenerationRow, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Screen:
    """Find out where one of these edits may act, by texts alone. `Done` with a bool a question."""

    id: int
    questions: tuple[str, ...]
    edits: tuple[Wordings, ...]

    @classmethod
    def of(cls, number: int, questions: Sequence[str], edits: Sequence[MemoryEntry]) -> Screen:
        """Of edits their words alone."""
        said = tuple(Wordings(edit.wordings, edit.not_for) for edit in edits)
        return cls(number, tuple(questions), said)


@dataclass(frozen=True, slots=True, eq=False)
class Encode:
    """Make an edit. `Progress` between gradient steps; `Done` with an `EditArtifact`."""

    id: int
    request: EditRequest
    editor: str


@dataclass(frozen=True, slots=True, eq=False)
class Rescope:
    """Make new keys for an edit. `Done` with an `EditArtifact`."""

    id: int
    artifact: EditArtifact
    request: EditRequest


@dataclass(frozen=True, slots=True, eq=False)
class Refine:
    """Refine the expert of one edit. `Done` with a `Refinement`."""

    id: int
    edit_id: str
    wanted: tuple[Wanted, ...]
    max_steps: int
    objective: str


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """Explain one token of the base model's answer. `Done` with an `Attribution`."""

    id: int
    image: ImageArray
    prompt: str
    token: int


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Look at a picture. `Done` with the `PictureKey` that it is known by."""

    id: int
    image: ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Read a text. `Done` with the `TokenLogprob` of each of its tokens after the first."""

    id: int
    ids: tuple[int, ...]
    top: int


@dataclass(frozen=True, slots=True, eq=False)
class Validate:
    """Refuse what `Encode` would refuse without running the model. `Done` with None."""

    id: int
    request: EditRequest
    editor: str


@dataclass(frozen=True, slots=True)
class Tokenise:
    """A text that is to be continued as it stands. `Done` with its tokens, a tuple of ints."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Survey:
    """Where an edit with these wordings will apply. `Done` with a `Reach`, see `look`."""

    id: int
    wordings: tuple[str, ...]
    not_for: tuple[str, ...]
    questions: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    """The newest snapshot, before any question comes with it. Nothing is replied."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the request `id`, before the next pass through the model. Unknown ones are over."""

    id: int


EditTask: TypeAlias = Encode | Rescope | Refine | Decide | Screen
"""A part of making an edit."""

Task: TypeAlias = EditTask | Attribute | Look | Judge
"""What has the device to itself between two decode steps."""

Aside: TypeAlias = Validate | Tokenise | Survey
"""What needs no pass through the model that answers, and so no turn."""

Request: TypeAlias = Generate | Task | Aside

Message: TypeAlias = Request | Cancel | Publish


@dataclass(frozen=True, slots=True)
class Begun:
    """The device has begun with a task, or with a row: it waits no more. An `Aside` has none."""

    id: int
    row: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """Text of one row that can no longer change."""

    id: int
    row: int
    text: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an edit's gradient steps are: `done` of `total` at most, and their loss."""

    id: int
    done: int
    total: int
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What came of a request."""

    id: int
    result: object


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """Why nothing came of it."""

    id: int
    error: Exception


Reply: TypeAlias = Begun | Text | Progress | Done | Failed
