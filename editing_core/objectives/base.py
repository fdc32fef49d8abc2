"""The contract of an objective: a batch of edits with probes in, named loss terms out.

An objective mutates nothing and owns no weights. It reads the edited model through
`ProbeBatch.edited_logits`, so the forward that is trained is the forward that is served.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Residual = Callable[[Tensor, Tensor], Tensor]
"""`(states [rows, n, hidden], steps [rows, n]) -> [rows, n, hidden]`."""

IN_SCOPE = ("edit", "rephrase", "view")
"""Roles whose rows must give the edit's target; every other role must keep the base's answer."""


@dataclass(frozen=True)
class ProbeBatch:
    """The probes of a batch of edits, ready for one edited forward.

    `edits` is what the editor's generator reads. `roles` names each row's part: `edit`,
    `rephrase`, `view`, or a locality role. `weights` float32 `[rows, edits]` are the router's
    weights, 0 where an expert is not selected; rows without any stay the base model's. `targets`
    int64 `[rows, n]`; `base_logits` `[rows, n, vocab]` without gradient. `edited_logits` runs the
    decoder with a residual at the edit layer.
    """

    edits: Any
    roles: tuple[str, ...]
    weights: Tensor
    targets: Tensor
    base_logits: Tensor
    edited_logits: Callable[[Residual], Tensor]


@dataclass(frozen=True)
class LossTerms:
    """Named scalar losses, already weighted; `total` is their sum."""

    terms: Mapping[str, Tensor]
    figures: Mapping[str, float]

    @property
    def total(self) -> Tensor:
        """What to differentiate."""
        return sum(self.terms.values(), start=next(iter(self.terms.values())) * 0.0)


class Objective(ABC):
    """What a trainer minimises for an editor."""

    name: str

    @abstractmethod
    def loss(self, batch: ProbeBatch, residual: Residual) -> LossTerms:
        """The loss of one batch, given the editor's fused residual for its rows."""
