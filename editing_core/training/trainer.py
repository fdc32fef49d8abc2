"""The loop that trains a router or an editor: seeded, resumable, with an honest clock.

A step's batch is a function of (seed, step) alone, so a run that was killed and resumed ends with
the weights of one that was not, bit for bit, when its length is given in steps. A length in
minutes follows the clock instead: the schedule is then a function of time spent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from editing_core import types
from editing_core.objectives.base import LossTerms, Objective
from editing_core.training.checkpoint import Progress, resume, save_checkpoint

logger = logging.getLogger(__name__)

Report = Callable[[float, int, Mapping[str, float]], None]
"""`(share done in 0..1, step, mean figures since the last report)`."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and how hard. Exactly one of `steps` and `minutes` is given.

    `matrix_rate` is Muon's rate for inner matrices, `rate` AdamW's for everything else; both are
    constant for the share `constant` of the run, then fall linearly to zero.
    """

    steps: int | None = None
    minutes: float | None = None
    seed: int = 7
    matrix_rate: float = 3e-3
    rate: float = 2e-3
    weight_decay: float = 0.01
    constant: float = 0.4
    warm_up: int = 30
    clip: float = 1.0
    checkpoint_seconds: float = 60.0
    report_every: int = 25

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes")

    def share(self, progress: Progress) -> float:
        """How much of the run is done, 0 to 1."""
        if self.steps is not None:
            return min(1.0, progress.step / max(1, self.steps))
        assert self.minutes is not None
        return min(1.0, progress.seconds / (60.0 * self.minutes))

    def rate_scale(self, progress: Progress) -> float:
        """The schedule: a short warm-up, constant, then linear to zero."""
        share = self.share(progress)
        warm = min(1.0, (progress.step + 1) / self.warm_up)
        return warm * min(1.0, (1.0 - share) / (1.0 - self.constant))


Notify = types.Notify


class Task(Protocol):
    """What is trained. `module` is checkpointed; `loss` draws the step's own batch."""

    name: str
    module: nn.Module

    def loss(self, step: int) -> LossTerms: ...


def make_optimisers(module: nn.Module, plan: TrainingPlan) -> list[torch.optim.Optimizer]:
    """Muon on the weights of linear layers, AdamW on the rest.

    Measured on this problem, Muon needs about a third of AdamW's steps.
    """
    matrices = [m.weight for m in module.modules() if isinstance(m, nn.Linear)]
    inner = {id(weight) for weight in matrices}
    rest = [p for p in module.parameters() if id(p) not in inner]
    return [
        torch.optim.Muon(
            matrices,
            lr=plan.matrix_rate,
            weight_decay=plan.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(rest, lr=plan.rate, weight_decay=plan.weight_decay, betas=(0.9, 0.98)),
    ]


def train(
    task: Task,
    plan: TrainingPlan,
    folder: Path,
    *,
    objective: Objective | None = None,
    report: Report | None = None,
) -> Progress:
    """Run or resume to the end. `folder` keeps the checkpoints.

    `objective` is the one that `task` minimises, if it has one: it is told what is trained and of
    every step, and what it learns is part of the checkpoints.

    Raises:
        ValueError: `folder` holds a run of another plan.
        FloatingPointError: the loss is no longer finite.
    """
    torch.manual_seed(plan.seed)
    optimisers = make_optimisers(task.module, plan)
    base_rates = (plan.matrix_rate, plan.rate)
    parameters = list(task.module.parameters())
    # The length may be extended on resume; what decides a step may not.
    identity: dict[str, Any] = {"task": task.name, "seed": plan.seed, "rates": list(base_rates)}
    modules = {"module": task.module}
    if objective is not None:
        identity["objective"] = {"name": objective.name, **objective.settings}
        objective.attach(parameters)
        if objective.state is not None:
            modules["objective"] = objective.state
    progress = resume(folder, modules=modules, optimisers=optimisers, plan=identity)
    sums: dict[str, float] = {}
    since_report = 0
    saved = time.monotonic()
    while plan.share(progress) < 1.0:
        began = time.monotonic()
        losses = task.loss(progress.step)
        total = losses.total
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"{task.name}: loss is {total.item()} at {progress.step}")
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        scale = plan.rate_scale(progress)
        for optimiser, rate in zip(optimisers, base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if objective is not None:
            objective.after_step()
        now = time.monotonic()
        progress = Progress(progress.step + 1, progress.seconds + now - began)
        for key, value in losses.terms.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        for key, figure in losses.figures.items():
            sums[key] = sums.get(key, 0.0) + figure
        since_report += 1
        is_done = plan.share(progress) >= 1.0
        if report is not None and (since_report == plan.report_every or is_done):
            means = {key: value / since_report for key, value in sums.items()}
            report(plan.share(progress), progress.step, means)
            sums, since_report = {}, 0
        if is_done or now - saved > plan.checkpoint_seconds:
            save_checkpoint(folder, progress, modules=modules, optimisers=optimisers, plan=identity)
            saved = now
    logger.info("%s: %d steps in %.0f s", task.name, progress.step, progress.seconds)
    return progress
