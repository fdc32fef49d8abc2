"""What is added to new tokens while rows decode: experts made ready once, applied at every step.

Rows come and go by their own lines (`experts/grouped.py`). Rows without experts are in no group and
keep their bits; where no row has any there are no taps, and the plain path runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from editing_core.backbones.passes import Tap
from editing_core.experts.grouped import Group, group_for
from editing_core.intervention import Fused
from editing_core.states import Intervention
from editing_core.types import Positions


class DecodeTaps:
    """The experts of rows that decode together."""

    def __init__(self, *, device: torch.device) -> None:
        self._device = device
        self._layers: dict[int, list[Group[Any]]] = {}
        self._index: dict[int, Tensor] = {}
        """The rows of each group's lines, by the group's `id`, until rows come or go."""

    def add(self, row: int, fused: Fused) -> None:
        """Take in what the batch's row `row` has selected."""
        for layer, interventions in fused.items():
            for each in interventions:
                # What changed a picture's rows reaches later tokens through the cache.
                if each.positions != "vision":
                    self._add(row, layer, each)

    def keep(self, rows: Sequence[int]) -> None:
        """Row `rows[i]` is row i from now on; all others are gone."""
        places = {row: place for place, row in enumerate(rows)}
        for layer, groups in list(self._layers.items()):
            for group in groups:
                group.keep(places)
            self._layers[layer] = [group for group in groups if group.rows]
            if not self._layers[layer]:
                del self._layers[layer]
        self._index.clear()

    def join(self, other: DecodeTaps, first: int) -> None:
        """Take in the rows of `other`, whose row 0 is row `first` here."""
        for layer, row, each in other:
            self._add(first + row, layer, each)

    def __iter__(self) -> Iterator[tuple[int, int, Intervention]]:
        """Layer, row and what acts there."""
        for layer, groups in self._layers.items():
            for group in groups:
                for row, each in zip(group.rows, group.acting, strict=True):
                    yield layer, row, each

    def at(self, steps: Sequence[int]) -> dict[int, Tap] | None:
        """Taps for one new token a row, whose number is `steps[row]`: 2 for the first generated
        one, 1 for the last of the prompt."""
        if not self._layers:
            return None
        numbers = torch.tensor(steps, device=self._device)
        return {layer: self._tap(layer, numbers) for layer in self._layers}

    def _tap(self, layer: int, steps: Tensor) -> Tap:
        def tap(hidden: Tensor) -> Tensor:
            return self.added(layer, hidden[:, 0], steps).unsqueeze(1)

        return tap

    def added(
        self, layer: int, states: Tensor, steps: Tensor, *, positions: Positions | None = None
    ) -> Tensor:
        """`states` `[batch, hidden]` with the residuals; `steps` int64 `[batch]`.

        With `positions`, with those alone that have them.
        """
        changed = states
        for group in self._layers.get(layer, ()):
            if positions not in (None, group.positions):
                continue
            # Every intervention reads the base states, never another's result.
            if group.rows == list(range(len(states))):
                changed = changed + group.residual(states.float(), steps).to(states.dtype)
                continue
            rows = self._index.get(id(group))
            if rows is None:
                rows = torch.tensor(group.rows, device=self._device)
                self._index[id(group)] = rows
            own = states.index_select(0, rows).float()
            residual = group.residual(own, steps.index_select(0, rows))
            changed = changed.index_add(0, rows, residual.to(states.dtype))
        return changed

    def _add(self, row: int, layer: int, intervention: Intervention) -> None:
        groups = self._layers.setdefault(layer, [])
        like = (each for each in groups if each.positions == intervention.positions)
        group = next((each for each in like if each.takes(intervention)), None)
        if group is None:
            group = group_for(intervention)
            groups.append(group)
        group.add(row, intervention)
        self._index.clear()
