"""What is added to new tokens while rows decode: experts made ready once, applied at every step.

Rows without experts are in no group and keep their bits; where no row has any there are no taps,
and the plain path runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from editing_core.backbones.passes import Tap
from editing_core.experts.grouped import Group, grouped
from editing_core.intervention import Fused


class DecodeTaps:
    """The experts of rows that decode together; `fused[b]` are those of row b."""

    def __init__(self, fused: Mapping[int, Fused]) -> None:
        layers = dict.fromkeys(layer for by_layer in fused.values() for layer in by_layer)
        self._groups: dict[int, list[Group]] = {}
        for layer in layers:
            acting = [
                (b, each)
                for b, by_layer in fused.items()
                for each in by_layer.get(layer, ())
                # What changed a picture's rows reaches later tokens through the cache.
                if each.positions != "vision"
            ]
            if acting:
                self._groups[layer] = grouped(acting)

    def at(self, steps: Tensor) -> dict[int, Tap] | None:
        """Taps for one new token a row; `steps` int64 `[batch]`, 2 for the first generated one."""
        if not self._groups:
            return None
        return {layer: _tap(groups, steps) for layer, groups in self._groups.items()}


def _tap(groups: list[Group], steps: Tensor) -> Tap:
    def tap(hidden: Tensor) -> Tensor:
        changed = hidden
        for rows, acting in groups:
            index = torch.tensor(rows, device=hidden.device)
            # Every intervention reads the base states, never another's result.
            residual = acting.residual(hidden[index, 0].float(), steps[index])
            changed = changed.index_add(0, index, residual.to(hidden.dtype).unsqueeze(1))
        return changed

    return tap
