"""`errata train`: an editor, or the router, on a frozen backbone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from editing_core.backbones.base import Backbone
    from editing_core.checkpoint import CheckpointLayout

app = typer.Typer(add_completion=False)

# What a recipe's file calls its parts; the first is the default.
_FORMS = {"liveedit": ("aligned", "paper"), "visedit": ("adapter",), "fitted": ("statistics",)}
_WORLD = "heraldry"
_HELD_OUT = 64
_DATASETS = (_WORLD, "evqa", "eic", "vlkeb")


@app.command()
def train(
    backbone: Annotated[
        str,
        typer.Option(
            "--model",
            "--backbone",
            help="Checkpoint to train on: 'heraldry', a folder, or a hub id.",
        ),
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
    dataset: Annotated[
        str, typer.Option(help="What to train on: heraldry (the embedded world), evqa, eic, vlkeb.")
    ] = _WORLD,
    path: Annotated[Path | None, typer.Option(help="Folder of a published dataset.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe: configs/<editor>/<recipe>.yaml, or a .yaml file of yours; default: "
            "'heraldry' for the embedded model's kind on its own world, else 'default'."
        ),
    ] = None,
    layer: Annotated[
        int | None, typer.Option(min=0, help="Edit layer; default: the recipe's, or 2/3 of depth.")
    ] = None,
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
    batch: Annotated[
        int | None, typer.Option(min=1, help="Edits in one draw; default: the recipe's.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Draws in one step, of each process.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="What is drawn, and how.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many records of a dataset.")
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            min=0, help="Records to validate on, never trained on; default: 64, at most a fifth."
        ),
    ] = None,
    validations: Annotated[
        int | None, typer.Option(min=0, help="How often to validate in a run; default: 10.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps; default: auto for other backbones.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="The frozen model's: auto, fp32, bf16, fp16.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint folder to write into; default: the backbone's.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for states and checkpoints.")] = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run stopped, or begin again.")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it will take, or try two steps; write nothing."),
    ] = False,
) -> None:
    """Train and write one part of a checkpoint. Kill it and run it again: it resumes.

    On the embedded model's own world everything is computed once and kept; on any other model or
    dataset every step runs the frozen model. docs/training.md tells what to expect.

    Examples:

        errata train --router

        errata train --editor liveedit --form paper --minutes 20

        errata train --editor visedit

        errata train --editor fitted

        errata train --objective odedit --objective-setting gen=0 --out runs/without-mmd

        errata train --model models/qwen2.5-vl-7b --dataset vlkeb --path VLKEB/ --dry-run

        accelerate launch --num_processes 4 -m app train --model models/llava-1.5-7b
        --dataset evqa --path MMEdit/ --dtype bf16 --batch 8 --accumulate 2 --steps 20000
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
    if dataset not in _DATASETS:
        raise typer.BadParameter(f"give one of: {', '.join(_DATASETS)}", param_hint="--dataset")
    if (dataset == _WORLD) != (path is None):
        raise typer.BadParameter("name the folder of a published dataset", param_hint="--path")

    import torch

    from app.commands.train_prepared import measure, run_prepared
    from editing_core.errors import EditingError
    from editing_core.training.processes import are_several
    from editing_core.training.recipes import choose_objective, read_recipe

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    try:
        layout, family = _find(backbone, with_weights=not dry_run)
        is_prepared = (
            dataset == _WORLD
            and family.has_plain_prefix
            and device in (None, "cpu")
            and dtype in (None, "fp32")
            and not are_several()
        )
        if router and not is_prepared:
            raise typer.BadParameter(
                "a router is trained on the embedded world only, by one process in fp32 on a CPU, "
                "for families whose prefixes can be kept; others are served with frozen features",
                param_hint="--router",
            )
        if is_prepared and (limit, hold_out, validations) != (None, None, None):
            raise typer.BadParameter(
                "on its own world the embedded model is trained and checked as its recipe says; "
                "--device auto trains it as any backbone is",
                param_hint="--limit, --hold-out, --validations",
            )
        if editor == "fitted" and not router:
            if (steps, minutes, objective, objective_setting) != (None,) * 4 or dry_run:
                raise typer.BadParameter("fitted is measured, not trained", param_hint="--editor")
            target = _target(out, layout, backbone, dry_run=False)
            measure(layout, recipe or "heraldry", work / form, target)
            return
        part = "router" if router else form
        name = recipe or ("heraldry" if is_prepared else "default")
        try:
            settings = read_recipe(
                editor, name, part, steps=steps, minutes=minutes, seed=seed, accumulate=accumulate
            )
        except LookupError as error:
            raise typer.BadParameter(str(error), param_hint="--recipe") from error
        settings |= {k: v for k, v in (("layer", layer), ("batch", batch)) if v is not None}
        folder = work / (part if dataset == _WORLD else f"{part}-{dataset}")
        if router and (objective is not None or objective_setting):
            raise typer.BadParameter("a router has its own losses", param_hint="--objective")
        if not router:
            try:
                choose_objective(settings, objective, objective_setting or ())
            except (LookupError, TypeError, ValueError) as error:
                raise typer.BadParameter(str(error), param_hint="--objective") from error
            if objective is not None:  # its run is another one: both may wait to be resumed
                folder = folder.with_name(f"{folder.name}-{objective}")
        target = _target(out, layout, backbone, dry_run=dry_run)
        if is_prepared:
            run_prepared(
                layout,
                settings,
                folder,
                target,
                is_router=router,
                resume=resume,
                dry_run=dry_run,
            )
            return
        from app.commands.train_any import Options, run

        options = Options(
            settings=settings,
            dataset=dataset,
            path=path,
            limit=limit,
            hold_out=_HELD_OUT if hold_out is None else hold_out,
            validations=validations,
            device=device or "auto",
            dtype=dtype or "auto",
            work=folder,
            target=target,
            resume=resume,
        )
        run(layout, family, options, dry_run=dry_run)
    except EditingError as error:
        typer.echo(f"errata: {error.message} {error.hint} ({error.code})", err=True)
        raise typer.Exit(1) from error


def _find(name: str, *, with_weights: bool) -> tuple[CheckpointLayout, type[Backbone]]:
    """Where the model lies, and its family, by its configuration alone."""
    from editing_core.backbones.loading import family_of, find_checkpoint

    layout = find_checkpoint(name, with_weights=with_weights)
    return layout, family_of(layout)


def _target(out: Path | None, layout: CheckpointLayout, backbone: str, *, dry_run: bool) -> Path:
    """The folder that gets the part: the checkpoint's own, unless it lies in the hub's cache."""
    is_ours = layout.root == Path(backbone) or backbone == "heraldry"
    if out is None and not is_ours and not dry_run:
        raise typer.BadParameter(
            "name a folder for what is trained, or give a model that lies in a folder of yours: "
            "the hub's cache is no place for it",
            param_hint="--out",
        )
    return out or layout.root
