"""The contract of an objective: a batch of edits with probes in, named loss terms out.

An objective reads the edited model through `ProbeBatch`, so the forward that is trained is the
forward that is served. Most own nothing and never change. One that learns something itself keeps
it in `state`; whoever trains with it keeps to this order, and checkpoints `state` beside the
module it trains:

    objective.attach(parameters)       once, before the first loss: what is being trained
    objective.loss(batch, residual)    any number of times; changes nothing
    objective.after_step()             once after every step of the optimisers
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

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
    int64 `[rows, n]`; `base_logits` `[rows, n, vocab]` without gradient, or `[rows, n, 1]` where no
    row is out of scope and nobody ran the base model.

    `edited_hidden` runs the decoder with a residual at the edit layer and gives what the output
    head reads, after the final norm: `[rows, n, hidden]`, row `i` of an answer being the state
    from which target token `i` is chosen. `head` turns it into logits `[rows, n, vocab]`; it is
    linear without bias, so a factor on the hidden states is the same factor on the logits.
    """

    edits: Any
    roles: tuple[str, ...]
    weights: Tensor
    targets: Tensor
    base_logits: Tensor
    edited_hidden: Callable[[Residual], Tensor]
    head: Callable[[Tensor], Tensor]

    def edited_logits(self, residual: Residual) -> Tensor:
        """`[rows, n, vocab]`: what the head makes of `edited_hidden`."""
        return self.head(self.edited_hidden(residual))


@dataclass(frozen=True)
class LossTerms:
    """Named scalar losses, already weighted; `total` is their sum.

    `figures` are worth a line in the log and no part of the loss.
    """

    terms: Mapping[str, Tensor]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """What to differentiate."""
        return sum(self.terms.values(), start=next(iter(self.terms.values())) * 0.0)


class Objective(ABC):
    """What a trainer, or a refinement at edit time, minimises. It knows no editor."""

    name: str

    @classmethod
    def at_edit_time(cls) -> Self:
        """A fresh one for the refinement of one expert, which has few steps to make."""
        return cls()

    @abstractmethod
    def loss(self, batch: ProbeBatch, residual: Residual) -> LossTerms:
        """The loss of one batch, given the editor's fused residual for its rows."""

    @property
    def needs_locality(self) -> bool:
        """Whether rows out of scope mean anything to it; a task without need draws none."""
        return True

    @property
    def settings(self) -> Mapping[str, Any]:
        """What it was made with, as JSON would have it: recorded, and compared on resume."""
        return {}

    @property
    def state(self) -> nn.Module | None:
        """What it learns and remembers itself, to be checkpointed; None where there is nothing."""
        return None

    def attach(self, parameters: Sequence[Tensor]) -> None:
        """Be told what is being trained: the very tensors that the optimisers change."""
        del parameters

    def after_step(self) -> None:  # noqa: B027  # most have nothing to do then
        """Be told that the optimisers have made a step."""
