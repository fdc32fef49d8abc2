"""Free experts: low-rank ReLU adapters tied to no token, LiveEdit's own form (its equation 6).

    h' = h + sum_e w_e ReLU( LN_x(h) U_e^T ) V_e          every row

The affine part of `LN_x` is folded into `down` (U) and `bias`, so a payload is read with a
parameter-free norm and needs no weights of the editor that made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.experts.rounding import rounded_payload
from editing_core.experts.slots import KIND_FIELD, standardise
from editing_core.types import Positions

FREE_KIND = "free"


@dataclass(frozen=True, slots=True)
class FreeExpert:
    """One edit's adapter: `down`, `up` float32 `[rank, hidden]`, `bias` float32 `[rank]`."""

    down: Tensor
    up: Tensor
    bias: Tensor

    def payload(self) -> dict[str, Tensor]:
        """The tensors as stored, see `rounding`."""
        return rounded_payload({"down": self.down, "up": self.up, "bias": self.bias})

    def metadata(self) -> dict[str, str]:
        """What the payload's metadata says of it."""
        return {KIND_FIELD: FREE_KIND}

    @classmethod
    def from_payload(
        cls, payload: Mapping[str, Tensor], *, device: torch.device | str = "cpu"
    ) -> FreeExpert:
        """Read `payload()` back in float32.

        Raises:
            ValueError: a tensor is missing, or the shapes do not fit together.
        """
        missing = {"down", "up", "bias"} - set(payload)
        if missing:
            raise ValueError(f"a free payload lacks {', '.join(sorted(missing))}")
        down, up, bias = (payload[n].to(device, torch.float32) for n in ("down", "up", "bias"))
        if down.ndim != 2 or down.shape != up.shape or bias.shape != down.shape[:1]:
            raise ValueError("a free payload needs down and up [r, d] and bias [r]")
        return cls(down=down, up=up, bias=bias)


def free_residual(
    states: Tensor, *, down: Tensor, bias: Tensor, up: Tensor, weight: Tensor
) -> Tensor:
    """The weighted sum over experts, without a rows x experts x hidden tensor.

    Args:
        states: `[..., rows, hidden]`.
        down, up: `[experts * rank, hidden]`; bias: `[experts * rank]`.
        weight: `[experts * rank]` or `[..., 1, experts * rank]`, the weight of each unit's expert.
            It multiplies the ReLU's output, so that one matrix product does the sum.
    """
    return (torch.relu(standardise(states) @ down.T + bias) * weight) @ up


class FreeIntervention:
    """The adapters of one row's experts, fused once at prefill; acts on every row. Immutable."""

    positions: Positions = "all"

    def __init__(self, experts: Sequence[tuple[FreeExpert, float]]) -> None:
        if not experts:
            raise ValueError("an intervention needs at least one expert")
        self.down = torch.cat([expert.down for expert, _ in experts])
        self.bias = torch.cat([expert.bias for expert, _ in experts])
        self.up = torch.cat([expert.up for expert, _ in experts])
        self.weight = torch.cat([torch.full_like(expert.bias, w) for expert, w in experts])

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to `states` `[rows, hidden]`; `steps` plays no part in this form."""
        del steps
        return free_residual(states, down=self.down, bias=self.bias, up=self.up, weight=self.weight)
