"""`errata train` on any backbone and dataset: what it will take, and the training itself."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import typer

from app.commands.progress import bars
from editing_core.backbones.loading import load_backbone
from editing_core.checkpoint import write_manifest
from editing_core.config import Placement
from editing_core.errors import TrainingError
from editing_core.training.estimate import Estimate, estimate, measure_step
from editing_core.training.general_recipe import GeneralRecipe, train_on
from editing_core.training.processes import OneProcess, Processes, SeveralProcesses, are_several
from editing_core.training.sources import DrawnEdits, EditSource, dataset_edits
from editing_core.training.trainer import TrainingPlan

if TYPE_CHECKING:
    from editing_core.backbones.base import Backbone
    from editing_core.checkpoint import CheckpointLayout

_DRAWN, _DRAWN_HELD_OUT = 20_000, 64
_SMALL_ENOUGH = 10**9
"""Parameters of a model that a dry run measures on a CPU, too."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said, beyond the recipe."""

    settings: dict[str, Any]
    dataset: str
    path: Path | None
    limit: int | None
    hold_out: int
    validations: int | None
    device: str
    dtype: str
    work: Path
    target: Path
    resume: bool


def run(
    layout: CheckpointLayout, family: type[Backbone], options: Options, *, dry_run: bool
) -> None:
    """Train, or with `dry_run` say what that would take. Raises `EditingError`."""
    settings = dict(options.settings)
    if options.validations is not None:
        settings["validations"] = options.validations
    try:
        recipe = GeneralRecipe(**settings)
    except TypeError as error:
        raise TrainingError(
            f"the recipe is not one for any backbone: {error}",
            hint="configs/liveedit/default.yaml is one.",
        ) from error
    source, held_out = _edits(options)
    if dry_run:
        _tell(layout, family, recipe, source, held_out, options)
        return
    team, placement = _processes(options)
    is_first = team.rank == 0
    if not is_first:
        logging.disable(logging.INFO)
    if is_first and not options.resume:
        shutil.rmtree(options.work, ignore_errors=True)
    team.wait()
    backbone = load_backbone(layout, placement)
    work = options.work / f"base-{backbone.fingerprint.removeprefix('sha256:')[:12]}"
    finished = work / "finished"
    with bars(shown=is_first) as (_, report):
        train_on(
            backbone,
            recipe,
            source,
            out=finished,
            work=work,
            held_out=held_out,
            processes=team,
            report=report,
        )
    if is_first:
        install(finished, options.target, layout)
        if (work / "validation.jsonl").is_file():
            typer.echo(f"validation: {work / 'validation.jsonl'}; best weights: {work / 'best'}")


def install(finished: Path, target: Path, layout: CheckpointLayout) -> None:
    """Copy what was trained into a checkpoint; its manifest, if it has one, is written last."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(finished.iterdir()):
        shutil.copy2(file, target / file.name)
        typer.echo(f"wrote {target / file.name}")
    if target == layout.root and layout.manifest.is_file():
        write_manifest(target)
        typer.echo(f"wrote {layout.manifest}")


def _edits(options: Options) -> tuple[EditSource, EditSource | None]:
    if options.path is None:
        held_out = DrawnEdits("validation", _DRAWN_HELD_OUT) if options.hold_out else None
        return DrawnEdits("train", options.limit or _DRAWN), held_out
    return dataset_edits(
        options.dataset, options.path, hold_out=options.hold_out, limit=options.limit
    )


def _processes(options: Options) -> tuple[Processes, Placement]:
    if not are_several():
        return OneProcess(), _placement(options.device, options.dtype)
    team = SeveralProcesses(cpu=options.device == "cpu")
    return team, _placement(str(team.device), options.dtype)


def _placement(device: str, dtype: str) -> Placement:
    try:
        return Placement.resolve(device, dtype)
    except (ValueError, RuntimeError) as error:
        raise TrainingError(str(error), hint="See --device and --dtype.") from error


def _tell(
    layout: CheckpointLayout,
    family: type[Backbone],
    recipe: GeneralRecipe,
    source: EditSource,
    held_out: EditSource | None,
    options: Options,
) -> None:
    """A table of what the training will take. Reads no weights unless they are few."""
    from rich.console import Console
    from rich.table import Table

    placement = _placement(options.device, options.dtype)
    outline = family.outline(layout.model)
    found = estimate(outline, recipe, source, bytes_per_number=placement.dtype.itemsize)
    plan = TrainingPlan(**recipe.plan)
    seconds = _measured(layout, found, recipe, source, placement)
    table = Table("", "", title=f"{family.architecture}, {recipe.form}, {options.dataset}")
    for name, value in _lines(found, recipe, plan, source, held_out, placement, seconds).items():
        table.add_row(name, value)
    Console(width=100).print(table)
    typer.echo("dry run: nothing was written")


def _lines(
    found: Estimate,
    recipe: GeneralRecipe,
    plan: TrainingPlan,
    source: EditSource,
    held_out: EditSource | None,
    placement: Placement,
    seconds: float | None,
) -> Mapping[str, str]:
    rows = found.rows
    length = f"{plan.minutes} minutes" if plan.steps is None else f"{plan.steps:,} steps"
    if seconds is None:
        step, whole = "not measured", "not measured"
    else:
        step = f"{seconds * plan.accumulate:.3g} s on {placement.device}"
        whole = (
            length
            if plan.steps is None
            else f"{seconds * plan.accumulate * plan.steps / 3600:.1f} h"
        )
    return {
        "edits to train on": f"{len(source):,}",
        "edits held out": f"{len(held_out):,}" if held_out is not None else "none",
        "edit layer": str(found.layer),
        "parameters, frozen": f"{found.frozen:,}",
        "parameters, trained": f"{found.trained:,}",
        "rows of one draw": f"{rows.count} of up to {rows.tokens} tokens",
        "memory, frozen weights": f"{_gib(found.weights)} ({placement.dtype_name})",
        "memory, trained weights, gradients, optimiser": _gib(found.training),
        "memory, states at the edit layer": _gib(found.states),
        "memory, activations above it": _gib(found.activations),
        "memory, logits": _gib(found.logits),
        "memory, all": f"about {_gib(found.total)}",
        "length": length,
        "draws of one step": f"{plan.accumulate} of {recipe.batch} edits, each process",
        "time of one step": step,
        "time of the whole": whole,
    }


def _measured(
    layout: CheckpointLayout,
    found: Estimate,
    recipe: GeneralRecipe,
    source: EditSource,
    placement: Placement,
) -> float | None:
    """Seconds of one draw, or None where the model is not here, or too large to try."""
    is_here = any(layout.model.glob("*.safetensors"))
    if placement.device.type == "cuda":
        fits = found.total < torch.cuda.mem_get_info(placement.device)[0]
    else:
        fits = found.frozen < _SMALL_ENOUGH
    if not (is_here and fits):
        return None
    return measure_step(load_backbone(layout, placement), recipe, source)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
