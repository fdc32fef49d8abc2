"""The contract of an editor: one edit's base states in, one artifact's payload out.

An editor mutates nothing. `encode` is pure: the same states give the same bytes, and the base
model stays as it was. What it returns is valid for as long as the fingerprints stored beside it
match. `intervention` may fail only on a payload that is not of this editor's kind (`ValueError`);
what it returns is immutable and may serve one generation or many.

Most editors need one row and no gradient. One that needs more says so: `companions` are further
rows that it wants to see, and `fit` asks for gradient steps on what `encode` returned, until the
target is the answer to the edit and to every companion.

An editor knows no router: weights come in from outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer

from editing_core.states import EditStates, Intervention, Norm, RowStates
from editing_core.types import EditArtifact, EditRequest, ImageArray, Positions

__all__ = [
    "Companion",
    "EditStates",
    "Editor",
    "Fit",
    "Intervention",
    "Optimise",
    "RowStates",
    "Seen",
]


@dataclass(frozen=True, slots=True, eq=False)
class Companion:
    """One more row to see beside an edit's own; the target is the edit's.

    `wording` is 0 where it asks in the edit's own words, else the number of other words.
    """

    prompt: str
    image: ImageArray
    wording: int = 0


Seen = tuple[Companion, EditStates]


Optimise = Callable[[list[Tensor]], Optimizer]
"""Makes what moves tensors, given in units of their own."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Gradient steps that finish an expert.

    `units` names the tensors of its payload that move, each with the size of what a step of 1.0
    adds to an entry; `optimise` makes the steps, `max_steps` is how many there may be, and
    `is_slowed` has them shorten to nothing by then. They end when each token's logit leads all
    others by `margin`: greedy says it, and on other views too. With a `reach`, what is minimised is
    how far leads fall short of it; with none, the cross entropy.

    `companions` are seen beside those of `encode`, as they are needed. It is enough that `settled`
    turns of rows in succession need no step; by default all must. `begins` is a payload to set out
    from in place of the artifact's, where that is seen not to hold.
    """

    units: Mapping[str, float]
    optimise: Optimise
    max_steps: int
    margin: float = 0.0
    reach: float = 0.0
    is_slowed: bool = False
    companions: Sequence[Companion] = ()
    settled: int | None = None
    begins: Mapping[str, Tensor] | None = None


class Editor(ABC):
    """A method of editing."""

    name: str
    edit_layer: int
    positions: Positions
    rows_at_once: ClassVar[int] = 32
    """Of an edit and its companions as many have a gradient step together."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of its weights and configuration, `sha256:...`."""

    @property
    def norms(self) -> Mapping[str, Norm]:
        """The norms that read this editor's aligned experts, by id, beside the standard one."""
        return {}

    def companions(self, request: EditRequest) -> Sequence[Companion]:
        """Further rows that `encode` wants to see, the likeliest first; none by default.

        Pure, like `encode`. Those that are longer than the model reads will be left out.
        """
        del request
        return ()

    @abstractmethod
    def encode(
        self, states: EditStates, seen: Sequence[Seen] = ()
    ) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Make the expert: payload (on the CPU, rounded as it is stored) and metadata.

        `states` are the edit's own row, `seen` what became of its companions.
        """

    def fit(self, request: EditRequest, states: EditStates, artifact: EditArtifact) -> Fit | None:
        """The gradient steps that the expert needs before it is one; None for no such steps.

        `artifact` holds what `encode` made of `states`. Pure, like `encode`.
        """
        del request, states, artifact
        return None

    @abstractmethod
    def intervention(
        self,
        experts: Sequence[tuple[EditArtifact, float]],
        *,
        norms: Mapping[str, Norm] | None = None,
    ) -> Intervention:
        """Fuse one row's experts with the weights that the router gave them.

        `norms` are those of every editor loaded: aligned experts are fused with those that others
        made.
        """

    def guarded(self, artifact: EditArtifact) -> EditArtifact:
        """The same expert, able to keep silent: what a refinement sets out from where rows that the
        edit was routed to must be left alone. By default every expert is."""
        return artifact

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """Names of the payload's tensors that a refinement may move; by default all of them.

        `keeps` says that some rows must be left alone, and not only others changed.
        """
        del keeps
        return tuple(artifact.payload)

    def trainable_modules(self) -> tuple[nn.Module, ...]:
        """What a trainer may change and a device must hold; none for an editor without weights."""
        return ()
