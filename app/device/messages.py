"""What the service and the device say to each other: frozen values that can be pickled.

A request has an `id` of its sender's choosing; every reply names the request it belongs to. The
last reply to a request is `Done` or `Failed`, and one that was cancelled may get none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from editing_core.generation import GenerationRow
from editing_core.refinement import Wanted
from editing_core.types import EditArtifact, EditRequest, ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Generate:
    """Answer these rows. `Text` as it comes; `Done` with a `GenerationResult` a row."""

    id: int
    rows: tuple[GenerationRow, ...]


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
class ImageKey:
    """Look at a picture. `Done` with what the hard filter compares, float32 `[image_key_dim]`."""

    id: int
    image: ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Read a text. `Done` with the `TokenLogprob` of each of its tokens after the first."""

    id: int
    ids: tuple[int, ...]
    top: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the request `id`, before the next pass through the model. Unknown ones are over."""

    id: int


Task: TypeAlias = Encode | Rescope | Refine | Attribute | ImageKey | Judge
"""What has the device to itself between two decode steps."""

Request: TypeAlias = Generate | Task


@dataclass(frozen=True, slots=True)
class Begun:
    """One row is taken up: it waits no more."""

    id: int
    row: int


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
