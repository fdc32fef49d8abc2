"""`errata train`: an editor, or the router, on a frozen backbone."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from editing_core.training.trainer import Notify, Report

app = typer.Typer(add_completion=False)

# What a recipe's file calls its parts; the first is the default.
_FORMS = {"liveedit": ("aligned", "paper"), "visedit": ("adapter",), "fitted": ("statistics",)}


@app.command()
def train(
    backbone: Annotated[
        str, typer.Option(help="Checkpoint to train on: 'heraldry', a folder, or a hub id.")
    ] = "heraldry",
    editor: Annotated[
        str,
        typer.Option(help="Editor to train: liveedit, visedit; fitted is measured, in seconds."),
    ] = "liveedit",
    router: Annotated[
        bool, typer.Option("--router", help="Train the backbone's router instead of an editor.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(help="Of liveedit: 'aligned' (a slot per target token, default) or 'paper'."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Recipe: configs/<editor>/<recipe>.yaml.")
    ] = "heraldry",
    objective: Annotated[
        str | None,
        typer.Option(help="liveedit, odedit or same_data; default: the recipe's, as it sets it."),
    ] = None,
    objective_setting: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One setting of the objective; repeatable."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Length by the clock.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length in steps; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint folder to write into; default: the backbone's.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for states and checkpoints.")] = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run stopped, or begin again.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Two steps on a handful of emblems; write nothing.")
    ] = False,
) -> None:
    """Train, calibrate and write one part of a checkpoint. Kill it and run it again: it resumes.

    Examples:

        errata train --router

        errata train --editor liveedit

        errata train --editor liveedit --form paper --minutes 20

        errata train --editor visedit

        errata train --editor fitted

        errata train --objective odedit --objective-setting gen=0 --out runs/without-mmd
    """
    if editor not in _FORMS:
        raise typer.BadParameter(
            f"no {editor}; give one of: {', '.join(_FORMS)}", param_hint="--editor"
        )
    form = form or _FORMS[editor][0]
    if form not in _FORMS[editor]:
        raise typer.BadParameter(f"give one of: {', '.join(_FORMS[editor])}", param_hint="--form")
    if steps is not None and minutes is not None:
        raise typer.BadParameter("give --steps or --minutes, not both", param_hint="--steps")

    import torch

    from editing_core.backbones.loading import find_checkpoint, load_backbone
    from editing_core.checkpoint import write_manifest
    from editing_core.config import Placement
    from editing_core.training.fitted import FittedRecipe, measure_fitted
    from editing_core.training.recipes import (
        EditorRecipe,
        RouterRecipe,
        choose_objective,
        read_recipe,
        train_editor,
        train_router,
    )

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    part = "router" if router else form
    is_measured = editor == "fitted" and not router
    trained_by = (steps, minutes, objective, objective_setting or None, dry_run or None)
    if is_measured and any(option is not None for option in trained_by):
        raise typer.BadParameter("fitted is measured, not trained", param_hint="--editor")
    try:
        settings = read_recipe(editor, recipe, part, steps=steps, minutes=minutes)
    except LookupError as error:
        raise typer.BadParameter(str(error), param_hint="--editor") from error
    folder = work / part
    if not router and not is_measured:
        try:
            choose_objective(settings, objective, objective_setting or ())
        except (LookupError, TypeError, ValueError) as error:
            raise typer.BadParameter(str(error), param_hint="--objective") from error
        if objective is not None:  # its run is another one: both may wait to be resumed
            folder = work / f"{part}-{objective}"
    elif objective is not None or objective_setting:
        raise typer.BadParameter("a router has its own losses", param_hint="--objective")
    layout = find_checkpoint(backbone)
    base = load_backbone(layout, Placement.resolve())
    target = out or layout.root
    if dry_run:
        folder = folder.with_name(f"{folder.name}-dry-run")
        settings = _small(settings, is_router=router)
    if dry_run or not resume:
        shutil.rmtree(folder, ignore_errors=True)
    # Parts are written here first, so that the checkpoint changes at one moment only.
    finished = folder / "finished"
    with _bars() as (notify, report):
        if is_measured:
            measure_fitted(base, FittedRecipe(**settings), out=finished)
        elif router:
            train_router(
                base,
                RouterRecipe(**settings),
                out=finished,
                work=folder,
                notify=notify,
                report=report,
            )
        else:
            train_editor(
                base,
                EditorRecipe(**settings),
                out=finished,
                work=folder,
                notify=notify,
                report=report,
            )
    if dry_run:
        shutil.rmtree(folder)
        typer.echo("dry run: nothing was written")
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(finished.iterdir()):
        shutil.copy2(file, target / file.name)
        typer.echo(f"wrote {target / file.name}")
    if target == layout.root and layout.manifest.is_file():
        write_manifest(target)
        typer.echo(f"wrote {layout.manifest}")


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


@contextmanager
def _bars() -> Iterator[tuple[Notify, Report]]:
    """Progress on the terminal: one bar for what is prepared, one for the training."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        tasks: dict[str, int] = {}

        def notify(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        def report(share: float, step: int, figures: Mapping[str, float]) -> None:
            notify("training", round(1000 * share), 1000)
            shown = "  ".join(f"{name} {figure:.3f}" for name, figure in figures.items())
            progress.console.print(f"step {step:6d}  {shown}")

        yield notify, report
