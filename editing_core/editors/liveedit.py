"""LiveEdit: a trained generator turns one edit's base states into one expert, with no gradient.

Two forms of the same editor. `aligned`, the default, gives each target token a slot of its own
and acts from the last prompt token on. `paper` is the published form: four learned queries, a
ReLU between `down` and `up`, every row. Both generators read the same signal: the states of image,
prompt and answer at the edit layer, teacher-forced (section 2.2 of the method).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from editing_core.editors.base import Seen
from editing_core.editors.trained import TrainedEditor
from editing_core.experts.free import FreeExpert, FreeIntervention, free_residual
from editing_core.experts.generator import AlignedGenerator, EditBatch, FreeGenerator
from editing_core.experts.slots import (
    STANDARD_NORM,
    AlignedIntervention,
    SlotExpert,
    mix_slots,
    slot_logits,
    standardise,
)
from editing_core.states import EditStates, Intervention, Norm
from editing_core.types import EditArtifact, Positions

KIND = "liveedit"
Form = Literal["aligned", "paper"]
Residual = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class LiveEditConfig:
    """The shape of the editor and where it acts. Part of its fingerprint."""

    hidden: int
    edit_layer: int
    form: Form = "aligned"
    heads: int = 8
    rank: int = 4
    width: int = 192


class LiveEdit(TrainedEditor):
    """The editor of either form. Immutable once loaded; `module` is what a trainer trains."""

    kind = KIND
    config_type = LiveEditConfig
    config: LiveEditConfig

    def __init__(self, config: LiveEditConfig, *, backbone_fingerprint: str = "") -> None:
        super().__init__(config, backbone_fingerprint=backbone_fingerprint)
        self.name = "liveedit" if config.form == "aligned" else "liveedit-paper"
        self.positions: Positions
        self.module: AlignedGenerator | FreeGenerator
        if config.form == "aligned":
            self.positions = "from_last_prompt_token"
            self.module = AlignedGenerator(config.hidden, heads=config.heads)
        elif config.form == "paper":
            self.positions = "all"
            self.module = FreeGenerator(
                config.hidden, rank=config.rank, width=config.width, heads=config.heads
            )
        else:
            raise ValueError(f"unknown form {config.form!r}; known: aligned, paper")

    @torch.no_grad()
    def encode(
        self, states: EditStates, seen: Sequence[Seen] = ()
    ) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Make the expert; see `Editor.encode`."""
        del seen
        expert = self.generate([states])[0]
        return expert.payload(), expert.metadata()

    def intervention(
        self,
        experts: Sequence[tuple[EditArtifact, float]],
        *,
        norms: Mapping[str, Norm] | None = None,
    ) -> Intervention:
        """Fuse one row's experts, on the device of the module; see `Editor.intervention`."""
        device = next(self.module.parameters()).device
        if self.config.form == "aligned":
            return AlignedIntervention(
                [
                    (SlotExpert.from_payload(a.payload, a.metadata, device=device), weight)
                    for a, weight in experts
                ],
                norms=norms or {},
            )
        return FreeIntervention(
            [(FreeExpert.from_payload(a.payload, device=device), weight) for a, weight in experts]
        )

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """What is written (`up`) first; what it is written on only where rows must be left alone.

        A free expert has too few units to write a long target with `up` alone.
        """
        if self.config.form == "aligned":
            return ("up", "down", "bias") if keeps else ("up",)
        return tuple(artifact.payload)

    def start_from(self, edits: Sequence[EditStates]) -> None:
        """Fit the size of untrained experts to the states of a few edits."""
        self.module.start_from(torch.cat([edit.predicting for edit in edits]))

    def generate(self, edits: Sequence[EditStates]) -> list[Any]:
        """The experts of several edits at once, differentiably, in float32."""
        batch = EditBatch.collate(
            [edit.signal for edit in edits],
            [edit.predicting for edit in edits],
            [edit.target_embeddings for edit in edits],
        )
        experts: list[Any] = self.module(batch)
        return experts

    def batch_residual(self, edits: Sequence[EditStates], weights: Tensor) -> Residual:
        """One residual for many rows that mix the same experts, each with weights of its own.

        What a trainer runs. Row for row it equals `intervention(...)` with that row's weights.

        Args:
            edits: the edits whose experts are generated.
            weights: float32 `[rows, edits]`, 0 where an expert is not selected.

        Returns:
            `(states [rows, n, hidden], steps [rows, n]) -> [rows, n, hidden]`.
        """
        experts = self.generate(edits)
        if self.config.form == "aligned":
            return _aligned_residual(experts, weights)
        return _free_residual(experts, weights)


def _aligned_residual(experts: Sequence[SlotExpert], weights: Tensor) -> Residual:
    if any(expert.norm != STANDARD_NORM for expert in experts):
        raise ValueError("generated experts are read with the standard norm")
    down = torch.cat([expert.down for expert in experts])
    up = torch.cat([expert.up for expert in experts])
    bias = torch.cat([expert.bias for expert in experts])
    gamma = torch.cat([expert.gamma.expand(len(expert.down)) for expert in experts])
    index = torch.cat([torch.arange(1, len(expert.down) + 1) for expert in experts])
    owner = torch.cat([torch.full((len(e.down),), i) for i, e in enumerate(experts)])
    log_weights = weights.log()[:, None, owner.to(weights.device)]

    def residual(states: Tensor, steps: Tensor) -> Tensor:
        logits = slot_logits(
            standardise(states),
            steps,
            down=down,
            bias=bias,
            gamma=gamma,
            index=index.to(states.device),
        )
        return mix_slots(logits + log_weights, up, acting=steps >= 1)

    return residual


def _free_residual(experts: Sequence[FreeExpert], weights: Tensor) -> Residual:
    down = torch.cat([expert.down for expert in experts])
    up = torch.cat([expert.up for expert in experts])
    bias = torch.cat([expert.bias for expert in experts])
    rank = len(experts[0].bias)
    per_unit = weights.repeat_interleave(rank, dim=1)[:, None, :]

    def residual(states: Tensor, steps: Tensor) -> Tensor:
        del steps
        return free_residual(states, down=down, bias=bias, up=up, weight=per_unit)

    return residual
