"""Experts of many rows at once: one low-rank product for all, whatever each of them selected.

A decode step has one new token a row, and each row may have experts of its own. Their slots lie in
buffers with a line for each row (`lines.py`), and one batched product does what a loop over rows
would. It equals the loop up to rounding. A row enters by copying its own experts into a line, and
leaves by moving the last line there; no other row's are touched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from editing_core.experts.free import FreeIntervention
from editing_core.experts.lines import Lines
from editing_core.experts.slots import AlignedIntervention, SlotGroup, standardise
from editing_core.states import Intervention, Norm
from editing_core.types import Positions

Kind = TypeVar("Kind", bound=Intervention)


def group_for(intervention: Intervention) -> Group[Any]:
    """An empty group that takes it and its like."""
    kinds: tuple[type[Group[Any]], ...] = (GroupedSlots, GroupedUnits, OneByOne)
    kind = next(each for each in kinds if each.takes(intervention))
    return kind(intervention.positions)


class Group(ABC, Generic[Kind]):
    """Interventions of one kind and `positions`; line i is that of the batch's row `rows[i]`.

    A row may have several lines: what they add is summed.
    """

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self.rows: list[int] = []
        self.acting: list[Kind] = []
        """What each line was made of."""

    @staticmethod
    @abstractmethod
    def takes(intervention: Intervention) -> bool:
        """Whether it is of this kind."""

    def add(self, row: int, intervention: Kind) -> None:
        """A line for the row."""
        self._add(intervention)
        self.rows.append(row)
        self.acting.append(intervention)

    def keep(self, places: dict[int, int]) -> None:
        """Rows are numbered anew by `places`; those without a place are gone."""
        for line in reversed(range(len(self.rows))):
            if self.rows[line] not in places:
                self._remove(line)
                self.rows[line], self.acting[line] = self.rows[-1], self.acting[-1]
                del self.rows[-1], self.acting[-1]
        self.rows = [places[row] for row in self.rows]

    @abstractmethod
    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to base `states` float32 `[lines, hidden]`.

        `steps` int64 `[lines]`, 1 at the last prompt token and more after it, never less.
        """

    @abstractmethod
    def _add(self, intervention: Kind) -> None: ...

    @abstractmethod
    def _remove(self, line: int) -> None: ...


class GroupedSlots(Group[AlignedIntervention]):
    """Aligned experts. Slot 0 of each line is its null slot, which writes nothing."""

    def __init__(self, positions: Positions) -> None:
        super().__init__(positions)
        self._lines: dict[str, Lines] = {}
        """By the name of the norm that reads the slots; each has all lines, of width 1 or more."""
        self._norms: dict[str, Norm] = {}
        self._views: list[tuple[Norm, dict[str, Tensor]]] | None = None

    @staticmethod
    def takes(intervention: Intervention) -> bool:
        return isinstance(intervention, AlignedIntervention)

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """See `Group.residual`."""
        if self._views is None:
            self._views = [(self._norms[n], each.views()) for n, each in self._lines.items()]
        logits = [_logits(norm, views, states, steps) for norm, views in self._views]
        attention = (logits[0] if len(logits) == 1 else torch.cat(logits, 1)).softmax(1)
        mixed, first = states.new_zeros(()), 0
        for _, views in self._views:
            up = views["up"]
            part = attention[:, first : first + up.shape[1]]
            first += up.shape[1]
            mixed = torch.bmm(up.transpose(1, 2), part) + mixed
        return mixed.squeeze(-1)

    def _add(self, intervention: AlignedIntervention) -> None:
        self._views = None
        some = next(iter(intervention.groups.values()))
        for name, group in intervention.groups.items():
            if name not in self._lines:
                self._norms[name] = group.norm
                self._lines[name] = new = _slot_lines()
                for _ in self.rows:
                    new.add(_nothing(some))
        # The null slot takes part once, with the first norm's.
        null: float = intervention.null
        for name, lines in self._lines.items():
            group_or_none = intervention.groups.get(name)
            lines.add(_with_null(group_or_none or some, null, is_empty=group_or_none is None))
            null = -torch.inf

    def _remove(self, line: int) -> None:
        self._views = None
        for lines in self._lines.values():
            lines.remove(line)


class GroupedUnits(Group[FreeIntervention]):
    """Free experts."""

    def __init__(self, positions: Positions) -> None:
        super().__init__(positions)
        self._lines = Lines({"down": 0.0, "up": 0.0, "bias": 0.0, "weight": 0.0})

    @staticmethod
    def takes(intervention: Intervention) -> bool:
        return isinstance(intervention, FreeIntervention)

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """See `Group.residual`; `steps` plays no part in this form."""
        del steps
        views = self._lines.views()
        normed = standardise(states).unsqueeze(-1)
        units = torch.baddbmm(views["bias"].unsqueeze(-1), views["down"], normed)
        units = units.relu_() * views["weight"].unsqueeze(-1)
        return torch.bmm(views["up"].transpose(1, 2), units).squeeze(-1)

    def _add(self, intervention: FreeIntervention) -> None:
        parts = ("down", "up", "bias", "weight")
        self._lines.add({name: getattr(intervention, name) for name in parts})

    def _remove(self, line: int) -> None:
        self._lines.remove(line)


class OneByOne(Group[Intervention]):
    """Whatever else acts on single rows."""

    @staticmethod
    def takes(intervention: Intervention) -> bool:
        del intervention
        return True

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """See `Group.residual`."""
        lines = range(len(self.acting))
        return torch.cat(
            [self.acting[i].residual(states[i : i + 1], steps[i : i + 1]) for i in lines]
        )

    def _add(self, intervention: Intervention) -> None: ...

    def _remove(self, line: int) -> None: ...


def _logits(norm: Norm, views: dict[str, Tensor], states: Tensor, steps: Tensor) -> Tensor:
    """`[lines, slots, 1]`, see `experts/slots.py`."""
    distance = (views["index"] - steps.unsqueeze(-1)).abs_()
    base = torch.addcmul(views["bias"], distance, views["gamma"], value=-1.0)
    normed = norm(states, steps).unsqueeze(-1)
    return torch.baddbmm(base.unsqueeze(-1), views["down"], normed)


def _slot_lines() -> Lines:
    return Lines({"down": 0.0, "up": 0.0, "bias": -torch.inf, "gamma": 0.0, "index": 0.0})


def _with_null(group: SlotGroup, null: float, *, is_empty: bool) -> dict[str, Tensor]:
    """A line of these slots behind a null slot; of that alone where `is_empty`."""
    slots = slice(0, 0 if is_empty else None)

    def behind(part: Tensor, first: float) -> Tensor:
        padding = part.new_full((1, *part.shape[1:]), first)
        return torch.cat([padding, part[slots]])

    return {
        "down": behind(group.down, 0.0),
        "up": behind(group.up, 0.0),
        "bias": behind(group.bias, null),
        "gamma": behind(group.gamma, 0.0),
        "index": behind(group.index.to(group.down.dtype), 0.0),
    }


def _nothing(like: SlotGroup) -> dict[str, Tensor]:
    """A line in which no slot takes part."""
    return _with_null(like, -torch.inf, is_empty=True)
