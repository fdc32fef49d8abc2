"""The contract of an editor: one edit's base states in, one artifact's payload out.

An editor mutates nothing. `encode` is pure: the same states give the same bytes, and the base
model stays as it was. What it returns is valid for as long as the fingerprints stored beside it
match. `intervention` may fail only on a payload that is not of this editor's kind (`ValueError`);
what it returns is immutable and may serve one generation or many.

An editor knows no router: weights come in from outside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from editing_core.states import EditStates, Intervention, RowStates
from editing_core.types import EditArtifact, Positions

__all__ = ["EditStates", "Editor", "Intervention", "RowStates"]


class Editor(ABC):
    """A method of editing."""

    name: str
    edit_layer: int
    positions: Positions

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of its weights and configuration, `sha256:...`."""

    @abstractmethod
    def encode(self, states: EditStates) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Make the expert: payload (float16, CPU) and metadata."""

    @abstractmethod
    def intervention(self, experts: Sequence[tuple[EditArtifact, float]]) -> Intervention:
        """Fuse one row's experts with the weights that the router gave them."""

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """Names of the payload's tensors that a refinement may move; by default all of them.

        `keeps` says that some rows must be left alone, and not only others changed.
        """
        del keeps
        return tuple(artifact.payload)

    def trainable_modules(self) -> tuple[nn.Module, ...]:
        """What a trainer may change and a device must hold; none for an editor without weights."""
        return ()
