"""What is added to new tokens while rows decode: experts made ready once, applied at every step.

Rows without experts are in no group and keep their bits; where no row has any there are no taps,
and the plain path runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editing_core.backbones.passes import Tap
from editing_core.experts.grouped import grouped
from editing_core.intervention import Fused
from editing_core.states import Intervention


class DecodeTaps:
    """The experts of rows that decode together; `fused[b]` are those of row b."""

    def __init__(self, fused: Mapping[int, Fused], *, device: torch.device) -> None:
        layers = dict.fromkeys(layer for by_layer in fused.values() for layer in by_layer)
        self._groups: dict[int, list[tuple[Tensor, Intervention]]] = {}
        for layer in layers:
            acting = [
                (b, each)
                for b, by_layer in fused.items()
                for each in by_layer.get(layer, ())
                # What changed a picture's rows reaches later tokens through the cache.
                if each.positions != "vision"
            ]
            if acting:
                self._groups[layer] = [
                    (torch.tensor(rows, device=device), together)
                    for rows, together in grouped(acting)
                ]

    def at(self, steps: Tensor) -> dict[int, Tap] | None:
        """Taps for one new token a row; `steps` int64 `[batch]`, 2 for the first generated one."""
        if not self._groups:
            return None
        return {layer: _tap(groups, steps) for layer, groups in self._groups.items()}


def _tap(groups: Sequence[tuple[Tensor, Intervention]], steps: Tensor) -> Tap:
    def tap(hidden: Tensor) -> Tensor:
        changed = hidden
        for rows, together in groups:
            # Every intervention reads the base states, never another's result.
            residual = together.residual(hidden[rows, 0].float(), steps[rows])
            changed = changed.index_add(0, rows, residual.to(hidden.dtype).unsqueeze(1))
        return changed

    return tap
