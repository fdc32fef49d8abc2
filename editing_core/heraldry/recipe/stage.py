"""One training stage: data-parallel processes, a checkpoint every few minutes, exact resume.

A step's batch is a function of (seed, rank, step), so a stage that was killed and resumed ends
with the weights of one that was not.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn
from torch.multiprocessing.spawn import spawn

from editing_core.heraldry.recipe.optimisers import MuonWithAdamW

logger = logging.getLogger(__name__)

Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class StagePlan:
    """How long a stage runs and where it keeps its state."""

    name: str
    steps: int
    folder: Path
    seed: int = 7
    checkpoint_seconds: float = 120.0
    report_every: int = 50
    clip: float = 5.0


def log_progress(name: str, step: int, total: int, figures: dict[str, float]) -> None:
    """The plain reporter: one log line."""
    shown = "  ".join(f"{key} {value:.4f}" for key, value in figures.items())
    logger.info("%s %d/%d  %s", name, step, total, shown)


def run_stage(
    plan: StagePlan,
    model: nn.Module,
    optimiser: MuonWithAdamW,
    *,
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
    schedule: Callable[[int], float],
    report: Report = log_progress,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int = 0,
) -> None:
    """Run or resume a stage to its end. With several processes, call it in each.

    Args:
        loss_of: the loss of a step, and figures to report; draws the step's own batch.
        schedule: rate scale of a step.
        evaluate: figures measured now and then on the first process.
    """
    is_first = rank() == 0
    step, elapsed = _resume(plan, model, optimiser)
    started = saved = time.monotonic()
    sums: dict[str, float] = {}
    while step < plan.steps:
        loss, figures = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        _average_gradients(optimiser.parameters)
        nn.utils.clip_grad_norm_(optimiser.parameters, plan.clip)
        optimiser.step(schedule(step))
        step += 1
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
        now = time.monotonic()
        if is_first and (step % plan.report_every == 0 or step == plan.steps):
            count = (step - 1) % plan.report_every + 1
            means = {key: value / count for key, value in sums.items()}
            report(plan.name, step, plan.steps, {**means, "seconds": elapsed + now - started})
            sums = {}
        if is_first and evaluate and evaluate_every and step % evaluate_every == 0:
            report(f"{plan.name} check", step, plan.steps, evaluate())
        if is_first and (now - saved > plan.checkpoint_seconds or step == plan.steps):
            _save(plan, model, optimiser, step, elapsed + now - started)
            saved = now


def load_stage(model: nn.Module, checkpoint: Path) -> None:
    """The weights of a stage's checkpoint, into a model of the same shape."""
    tensors = load_file(checkpoint)
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )


def stage_seconds(plan: StagePlan) -> float:
    """Training time so far, added up over resumes; 0 before the first checkpoint."""
    path = plan.folder / f"{plan.name}.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0


def rank() -> int:
    """This process's number; 0 when training in one process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launch(worker: Callable[..., None], processes: int, *arguments: object) -> None:
    """Run `worker(*arguments)` in `processes` one-thread processes joined by gloo.

    Two one-thread processes are about twice as fast here as one process with two threads.
    """
    if processes == 1:
        torch.set_num_threads(1)
        worker(*arguments)
        return
    port = 20000 + os.getpid() % 20000
    spawn(  # type: ignore[no-untyped-call]
        _child, args=(processes, port, worker, arguments), nprocs=processes
    )


def _child(
    number: int, processes: int, port: int, worker: Callable[..., None], arguments: tuple[object]
) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=processes
    )
    try:
        worker(*arguments)
    finally:
        dist.destroy_process_group()


def _average_gradients(parameters: list[torch.Tensor]) -> None:
    if not dist.is_initialized():
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for parameter in parameters:
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()


def _save(
    plan: StagePlan, model: nn.Module, optimiser: MuonWithAdamW, step: int, seconds: float
) -> None:
    """Write the state beside the old one, then rename: a kill leaves the old or the new."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{key}": value.detach().clone() for key, value in model.state_dict().items()}
    for key, value in optimiser.state_tensors().items():
        tensors[f"optimiser.{key}"] = value.clone()
    path = plan.folder / f"{plan.name}.safetensors"
    save_file(tensors, path.with_suffix(".part"), metadata={"step": str(step)})
    path.with_suffix(".part").replace(path)
    note = {"step": step, "steps": plan.steps, "seconds": seconds, "seed": plan.seed}
    part = plan.folder / f"{plan.name}.json.part"
    part.write_text(json.dumps(note))
    part.replace(plan.folder / f"{plan.name}.json")


def _resume(plan: StagePlan, model: nn.Module, optimiser: MuonWithAdamW) -> tuple[int, float]:
    path, note = plan.folder / f"{plan.name}.safetensors", plan.folder / f"{plan.name}.json"
    if not path.exists() or not note.exists():
        return 0, 0.0
    tensors = load_file(path)
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    optimiser.load_state_tensors(
        {k.removeprefix("optimiser."): v for k, v in tensors.items() if k.startswith("optimiser.")}
    )
    state = json.loads(note.read_text())
    logger.info("%s resumes at step %d", plan.name, state["step"])
    return int(state["step"]), float(state["seconds"])
