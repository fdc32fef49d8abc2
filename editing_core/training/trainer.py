"""The loop that trains a router or an editor: seeded, resumable, with an honest clock.

What a step draws is a function of seed and step alone, so a run that was killed and resumed ends
with the weights of one that was not, bit for bit, when its length is given in steps. A length in
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
from editing_core.errors import TrainingError
from editing_core.objectives.base import LossTerms, Objective
from editing_core.training.checkpoint import Progress, resume, save_checkpoint
from editing_core.training.processes import OneProcess, Processes

logger = logging.getLogger(__name__)

Report = Callable[[float, int, Mapping[str, float]], None]
"""`(share done in 0..1, step, mean figures since the last report)`."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How long and how hard. Exactly one of `steps` and `minutes` is given.

    `matrix_rate` is Muon's rate for inner matrices, `rate` AdamW's for everything else; both are
    constant for the share `constant` of the run, then fall linearly to zero. A step is the mean of
    `accumulate` draws of every process.
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
    accumulate: int = 1
    checkpoint_seconds: float = 60.0
    report_every: int = 25

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes")
        if self.accumulate < 1:
            raise ValueError(f"a step is the mean of at least one draw, not {self.accumulate}")

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
    """What is trained. `module` is checkpointed.

    `loss` draws batch `number`, counted through the whole run; where a step is one draw, it is the
    step.
    """

    name: str
    module: nn.Module

    def loss(self, number: int, /) -> LossTerms: ...


Watch = Callable[[Progress, float], None]
"""`(progress, share done)`, after every step, on the first process. It changes no weight."""


def make_optimisers(module: nn.Module, plan: TrainingPlan) -> list[torch.optim.Optimizer]:
    """Muon on the weights of linear layers, if there are any, AdamW on the rest.

    Measured on routers and editors, Muon needs about a third of AdamW's steps.
    """
    matrices = [m.weight for m in module.modules() if isinstance(m, nn.Linear)]
    inner = {id(weight) for weight in matrices}
    rest = [p for p in module.parameters() if id(p) not in inner]
    adamw = torch.optim.AdamW(rest, lr=plan.rate, weight_decay=plan.weight_decay, betas=(0.9, 0.98))
    if not matrices:
        return [adamw]
    muon = torch.optim.Muon(
        matrices,
        lr=plan.matrix_rate,
        weight_decay=plan.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


def train(
    task: Task,
    plan: TrainingPlan,
    folder: Path,
    *,
    objective: Objective | None = None,
    report: Report | None = None,
    watch: Watch | None = None,
    processes: Processes | None = None,
    identity: Mapping[str, Any] | None = None,
) -> Progress:
    """Run or resume to the end. `folder` keeps the checkpoints.

    `objective` is the one that `task` minimises, if it has one: it is told what is trained and of
    every step, and what it learns is part of the checkpoints. `identity` is what else decides a
    step, as JSON would have it: a run is not resumed with another.

    Raises:
        AnotherPlan: `folder` holds a run of another plan.
        TrainingError: several processes are to follow the clock.
        FloatingPointError: the loss is no longer finite.
    """
    team = processes or OneProcess()
    if team.count > 1 and plan.steps is None:
        raise TrainingError(
            "the clocks of several processes differ", hint="Give the length in steps (--steps)."
        )
    torch.manual_seed(plan.seed)
    optimisers = make_optimisers(task.module, plan)
    base_rates = [optimiser.param_groups[0]["lr"] for optimiser in optimisers]
    parameters = list(task.module.parameters())
    # The length may be extended on resume; what decides a step may not.
    decides: dict[str, Any] = {
        "task": task.name,
        "seed": plan.seed,
        "rates": [plan.matrix_rate, plan.rate],
        "accumulate": plan.accumulate,
        "processes": team.count,
        **(identity or {}),
    }
    modules = {"module": task.module}
    if objective is not None:
        decides["objective"] = {"name": objective.name, **objective.settings}
        objective.attach(parameters)
        if objective.state is not None:
            modules["objective"] = objective.state
    progress = resume(folder, modules=modules, optimisers=optimisers, plan=decides)
    sums: dict[str, float] = {}
    since_report = 0
    saved = time.monotonic()
    draws = plan.accumulate * team.count
    while plan.share(progress) < 1.0:
        began = time.monotonic()
        for draw in range(team.rank * plan.accumulate, (team.rank + 1) * plan.accumulate):
            losses = task.loss(progress.step * draws + draw)
            total = losses.total
            if not bool(torch.isfinite(total)):
                raise FloatingPointError(f"{task.name}: loss is {total.item()} at {progress.step}")
            (total / plan.accumulate).backward()  # type: ignore[no-untyped-call]
            for key, value in losses.terms.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / plan.accumulate
            for key, figure in losses.figures.items():
                sums[key] = sums.get(key, 0.0) + figure / plan.accumulate
        team.average(parameters)
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
        since_report += 1
        is_done = plan.share(progress) >= 1.0
        if report is not None and team.rank == 0 and (since_report == plan.report_every or is_done):
            means = {key: value / since_report for key, value in sums.items()}
            report(plan.share(progress), progress.step, means)
            sums, since_report = {}, 0
        if team.rank == 0 and (is_done or now - saved > plan.checkpoint_seconds):
            save_checkpoint(folder, progress, modules=modules, optimisers=optimisers, plan=decides)
            saved = now
        if watch is not None and team.rank == 0:
            watch(progress, plan.share(progress))
    team.wait()
    logger.info("%s: %d steps in %.0f s", task.name, progress.step, progress.seconds)
    return progress
