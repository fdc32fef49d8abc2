"""Gradient steps for slots that are written from nothing, each towards a token of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

_LARGEST = torch.finfo(torch.float16).max


class SlotDescent(Optimizer):
    """Every row of a tensor moves by the same length, along its own gradient and those before.

    Adam gives each entry a pace of its own, which turns a row away from its gradient. On slots
    that start at zero this takes about half of Adam's steps (docs/decisions/0017).

    Args:
        lr: root mean square of the entries of a row's first step.
        momentum: how much of the last direction is kept.
    """

    def __init__(self, params: Iterable[Tensor], *, lr: float, momentum: float = 0.5) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> float | None:
        """Move once; `closure` may compute the loss anew."""
        loss: float | None = None if closure is None else closure()
        for group in self.param_groups:
            for tensor in group["params"]:
                if tensor.grad is None:
                    continue
                direction = torch.nn.functional.normalize(tensor.grad, dim=-1)
                direction = direction * tensor.shape[-1] ** 0.5
                before = self.state[tensor].get("direction", torch.zeros_like(direction))
                direction = torch.lerp(direction, before, group["momentum"])
                self.state[tensor]["direction"] = direction
                tensor.sub_(direction, alpha=group["lr"])
                # It is stored as float16, and no step may take it beyond.
                tensor.clamp_(-_LARGEST, _LARGEST)
        return loss
