"""`errata train` on the embedded world, for backbones whose prefixes are computed once and kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import typer

from app.commands.progress import bars
from app.commands.train_any import install
from editing_core.backbones.loading import load_backbone
from editing_core.checkpoint import CheckpointLayout
from editing_core.config import Placement
from editing_core.errors import TrainingError
from editing_core.training.fitted import FittedRecipe, measure_fitted
from editing_core.training.recipes import (
    EditorRecipe,
    RouterRecipe,
    read_recipe,
    train_editor,
    train_router,
)


def run_prepared(
    layout: CheckpointLayout,
    settings: dict[str, Any],
    folder: Path,
    target: Path,
    *,
    is_router: bool,
    resume: bool,
    dry_run: bool,
) -> None:
    """Train, calibrate and write one part; a dry run makes two steps and writes nothing."""
    if dry_run:
        folder = folder.with_name(f"{folder.name}-dry-run")
        settings = _small(settings, is_router=is_router)
    try:
        recipe = (RouterRecipe if is_router else EditorRecipe)(**settings)
    except TypeError as error:
        raise TrainingError(
            f"the recipe is not one for the embedded world: {error}",
            hint="With --device auto any backbone's recipe will do.",
        ) from error
    base = load_backbone(layout, Placement.resolve())
    if dry_run or not resume:
        shutil.rmtree(folder, ignore_errors=True)
    # Parts are written here first, so that the checkpoint changes at one moment only.
    finished = folder / "finished"
    with bars() as (notify, report):
        given: dict[str, Any] = {
            "out": finished,
            "work": folder,
            "notify": notify,
            "report": report,
        }
        if isinstance(recipe, RouterRecipe):
            train_router(base, recipe, **given)
        else:
            train_editor(base, recipe, **given)
    if dry_run:
        shutil.rmtree(folder)
        typer.echo("dry run: nothing was written")
        return
    install(finished, target, layout)


def measure(layout: CheckpointLayout, name: str, folder: Path, target: Path) -> None:
    """Measure the editor `fitted`: seconds, and nothing to resume."""
    settings = read_recipe("fitted", name, "statistics")
    finished = folder / "finished"
    measure_fitted(
        load_backbone(layout, Placement.resolve()), FittedRecipe(**settings), out=finished
    )
    install(finished, target, layout)


def _small(settings: dict[str, object], *, is_router: bool) -> dict[str, object]:
    """The recipe cut down to what shows that it runs."""
    plan = settings["plan"]
    assert isinstance(plan, dict)
    plan.pop("minutes", None)
    plan["steps"] = 2
    small = {"subjects": 8, "batch": 4, "plan": plan}
    if is_router:
        return {
            **settings,
            **small,
            "picture_subjects": 0,
            "calibration_subjects": 4,
            "calibration_pictures": 8,
        }
    return {**settings, **small, "check_batches": 1}
