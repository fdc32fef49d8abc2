"""Experts of many rows at once: one low-rank product for all, whatever each of them selected.

A decode step has one new token a row, and each row may have experts of its own. Their slots lie
side by side in buffers `[rows, slots, hidden]`, filled up with slots that take no part, and one
batched product does what a loop over rows would. It equals the loop up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editing_core.experts.free import FreeIntervention
from editing_core.experts.slots import AlignedIntervention, SlotGroup, standardise
from editing_core.states import Intervention
from editing_core.types import Positions

Group = tuple[list[int], Intervention]
"""Rows, and what acts on them: line i of its states and steps is that of row i of these."""


def grouped(acting: Sequence[tuple[int, Intervention]]) -> list[Group]:
    """Few groups instead of many rows; what acts on one row alone stays as it is.

    `acting` names a row as often as it has interventions.
    """
    aligned: dict[int, AlignedIntervention] = {}
    free: dict[int, FreeIntervention] = {}
    groups: list[Group] = []
    for row, each in acting:
        if isinstance(each, AlignedIntervention) and row not in aligned:
            aligned[row] = each
        elif isinstance(each, FreeIntervention) and row not in free:
            free[row] = each
        else:
            groups.append(([row], each))
    if aligned:
        groups.append((list(aligned), _alone_or(GroupedSlots, list(aligned.values()))))
    if free:
        groups.append((list(free), _alone_or(GroupedUnits, list(free.values()))))
    return groups


def _alone_or(kind: type, interventions: Sequence[Intervention]) -> Intervention:
    if len(interventions) == 1:
        return interventions[0]
    together: Intervention = kind(interventions)
    return together


class GroupedSlots:
    """The aligned experts of several rows; line i of the states is that of `rows[i]`."""

    positions: Positions = "from_last_prompt_token"

    def __init__(self, rows: Sequence[AlignedIntervention]) -> None:
        names = dict.fromkeys(name for row in rows for name in row.groups)
        self._groups = [_side_by_side(name, rows) for name in names]
        self._up = torch.cat([group.up for group in self._groups], dim=1)
        self._null = torch.tensor([[row.null] for row in rows], device=self._up.device)

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to `states` `[rows, hidden]`; `steps` int `[rows]`."""
        logits = [self._null]
        for group in self._groups:
            normed = group.norm(states, steps)
            distance = (group.index - steps.unsqueeze(-1)).abs().to(normed.dtype)
            products = torch.bmm(group.down, normed.unsqueeze(-1)).squeeze(-1)
            logits.append(products + group.bias - group.gamma * distance)
        attention = torch.cat(logits, dim=-1).softmax(dim=-1)[:, 1:]
        mixed = torch.bmm(attention.unsqueeze(1), self._up).squeeze(1)
        return mixed * (steps >= 1).unsqueeze(-1)


class GroupedUnits:
    """The free experts of several rows; line i of the states is that of `rows[i]`."""

    positions: Positions = "all"

    def __init__(self, rows: Sequence[FreeIntervention]) -> None:
        self._down = pad_sequence([row.down for row in rows], batch_first=True)
        self._bias = pad_sequence([row.bias for row in rows], batch_first=True)
        self._up = pad_sequence([row.up for row in rows], batch_first=True)
        self._weight = pad_sequence([row.weight for row in rows], batch_first=True)

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to `states` `[rows, hidden]`; `steps` plays no part in this form."""
        del steps
        products = torch.bmm(self._down, standardise(states).unsqueeze(-1)).squeeze(-1)
        units = torch.relu(products + self._bias) * self._weight
        return torch.bmm(units.unsqueeze(1), self._up).squeeze(1)


def _side_by_side(name: str, rows: Sequence[AlignedIntervention]) -> SlotGroup:
    """Buffers `[rows, slots, ...]` of the slots that the norm `name` reads.

    Rows that have fewer get slots with a logit of minus infinity.
    """
    some = next(row.groups[name] for row in rows if name in row.groups)
    found = [row.groups.get(name) for row in rows]

    def filled(field: str, value: float = 0.0) -> Tensor:
        none = getattr(some, field)[:0]
        parts = [none if group is None else getattr(group, field) for group in found]
        return pad_sequence(parts, batch_first=True, padding_value=value)

    return SlotGroup(
        norm=some.norm,
        down=filled("down"),
        up=filled("up"),
        bias=filled("bias", -torch.inf),
        gamma=filled("gamma"),
        index=filled("index"),
    )
