"""VisEdit: an adapter lets the picture's rows look at the edit, and rewrites what they carry.

Published for one edit at a time (AAAI 2025, arXiv 2408.09916). Here each edit keeps an expert of
its own, found by the same router as every other, and the adapter's weights are shared by all of
them: see `experts.visual` for the arithmetic and for what differs from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.editors.trained import TrainedEditor
from editing_core.experts.visual import VisualEditAdapter, VisualExpert, VisualIntervention
from editing_core.states import EditStates, Intervention
from editing_core.types import EditArtifact, Positions

KIND = "visedit"


@dataclass(frozen=True, slots=True)
class VisEditConfig:
    """The shape of the editor and where it acts. Part of its fingerprint.

    `patches` is how many rows of the edit's own picture an expert keeps: those that the influence
    mapper holds to matter most.
    """

    hidden: int
    edit_layer: int
    width: int = 256
    heads: int = 8
    patches: int = 16


class VisEdit(TrainedEditor):
    """The editor. Immutable once loaded; `module` is what a trainer trains."""

    name = "visedit"
    positions: Positions = "vision"

    kind = KIND
    config_type = VisEditConfig
    config: VisEditConfig

    def __init__(self, config: VisEditConfig, *, backbone_fingerprint: str = "") -> None:
        super().__init__(config, backbone_fingerprint=backbone_fingerprint)
        self.module: VisualEditAdapter = VisualEditAdapter(
            config.hidden, width=config.width, heads=config.heads
        )

    @torch.no_grad()
    def encode(self, states: EditStates) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Make the expert; see `Editor.encode`."""
        expert = self.module.expert(states, patches=self.config.patches)
        return expert.payload(), expert.metadata()

    def intervention(self, experts: Sequence[tuple[EditArtifact, float]]) -> Intervention:
        """Fuse one row's experts, on the device of the module; see `Editor.intervention`."""
        device = next(self.module.parameters()).device
        return VisualIntervention(
            self.module,
            [
                (VisualExpert.from_payload(a.payload, a.metadata, device=device), weight)
                for a, weight in experts
            ],
        )

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """What is looked at. The anchor decides how much is let through, and stays."""
        del artifact, keeps
        return ("source",)

    def start_from(self, edits: Sequence[EditStates]) -> None:
        """Fit the size of an untrained adapter's changes to the pictures of a few edits."""
        self.module.start_from(torch.cat([edit.image for edit in edits]))

    def batch_residual(self, edits: Sequence[EditStates], weights: Tensor) -> BatchResidual:
        """One residual for many rows that mix the same experts, each with weights of its own.

        What a trainer runs. Row for row it equals `intervention(...)` with that row's weights: it
        is given the picture's rows only, padded where another row shows a larger picture.

        Args:
            edits: the edits whose experts are made.
            weights: float32 `[rows, edits]`, 0 where an expert is not selected.
        """
        experts = [self.module.expert(e, patches=self.config.patches) for e in edits]
        return BatchResidual(self.module, experts, weights)


class BatchResidual:
    """`(pictures [rows, patches, hidden], steps) -> [rows, patches, hidden]`; steps play no part.

    What is added to one patch does not depend on how many others there are, so padding is harmless.
    """

    def __init__(
        self, adapter: VisualEditAdapter, experts: Sequence[VisualExpert], weights: Tensor
    ) -> None:
        self.experts = experts
        self._adapter = adapter
        self._weights = weights

    def __call__(self, states: Tensor, steps: Tensor) -> Tensor:
        del steps
        found: Tensor = self._adapter(states, self.experts, self._weights)
        return found
