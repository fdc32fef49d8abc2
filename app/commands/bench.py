"""`errata bench`: editors side by side, after one edit and after thousands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from editing_core.evaluation.bench import Progress
    from editing_core.evaluation.bench_run import BenchPlan

app = typer.Typer(add_completion=False)

_EDITORS = (
    "liveedit,liveedit-unverified,liveedit-paper,no_soft_routing,no_sentinel,no_image_filter,"
    "text_only_weights,ft_l,ft_m,in_context,grace,recipe"
)
_DATASETS = ("heraldry", "evqa", "eic", "vlkeb")


@app.command()
def bench(
    editors: Annotated[
        str, typer.Option(help="Contenders, by commas; `--list` names them all.")
    ] = _EDITORS,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="A contender of this name: the editor that `errata train --out FOLDER` wrote, "
            "unverified. Repeatable.",
        ),
    ] = None,
    edits: Annotated[str, typer.Option(help="Edit counts, by commas.")] = "1,10,100,1000",
    probes: Annotated[
        int, typer.Option(min=1, help="Edits probed for each seed; a quarter below 100 edits.")
    ] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of the edits; intervals need two.")] = 3,
    baseline_seeds: Annotated[
        int,
        typer.Option(min=1, help="Seeds for the baselines, whose edits cost ten times as much."),
    ] = 1,
    groups: Annotated[
        int,
        typer.Option(
            min=0,
            max=250,
            help="Measure edits that meet instead: so many groups of 2 and of 4 questions on one "
            "picture, as many of look-alikes asked the same, and two-hop facts.",
        ),
    ] = 0,
    dataset: Annotated[str, typer.Option(help="heraldry, evqa, eic or vlkeb.")] = "heraldry",
    path: Annotated[Path | None, typer.Option(help="Folder of a published dataset.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint folder or hub id; default: the embedded model.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for lines, tables and plots.")] = Path(
        "bench-results"
    ),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out; may add seeds, editors."),
    ] = False,
    edits_off: Annotated[
        bool, typer.Option("--edits-off", help="Take every edit back before asking: a control.")
    ] = False,
    verify_every: Annotated[
        int, typer.Option(min=1, help="Verify only every so-manieth edit; for 10,000 of them.")
    ] = 1,
    processes: Annotated[int, typer.Option(min=1, help="One-thread processes to measure in.")] = 2,
    list_: Annotated[bool, typer.Option("--list", help="Name the contenders and stop.")] = False,
) -> None:
    """Measure editors side by side: what holds, what is left alone, and what it costs.

    Edits are made one after another, then every probe is asked with all of them in force, by free
    greedy generation; an answer counts when all of it is right and the stop token ended it.
    Teacher-forced token accuracy stands apart. The unedited model is always a row. Kill it and run
    it again with --resume. docs/evaluation.md explains the probes and how to read the tables.

    Examples:

        errata bench --editors liveedit,in_context --edits 1,10 --probes 20 --seeds 1

        errata bench --out results/lifelong

        errata bench --editors liveedit --edits 10000 --probes 1000 --seeds 1 --verify-every 20

        errata bench --editors liveedit --groups 200 --out results/groups

        errata bench --editors liveedit-unverified --also odedit=runs/odedit

        errata bench --dataset vlkeb --path VLKEB/ --model checkpoints/llava --edits 1,10,100
    """
    import torch

    from editing_core.errors import EditingError
    from editing_core.evaluation import lineup
    from editing_core.evaluation.bench_run import BenchPlan, run_bench
    from editing_core.evaluation.fresh import BLOCK

    if list_:
        for name in lineup.names():
            typer.echo(f"{name:20s} {lineup.MEANINGS.get(name, 'a baseline')}")
        return
    chosen = _names(editors, lineup.names())
    trained = _trained(also or [], lineup.names())
    counts = _counts(edits)
    if dataset not in _DATASETS:
        raise typer.BadParameter(f"give one of: {', '.join(_DATASETS)}", param_hint="--dataset")
    if (dataset == "heraldry") != (path is None):
        raise typer.BadParameter("name the folder of a published dataset", param_hint="--path")
    if dataset == "heraldry" and max(counts) > BLOCK:
        raise typer.BadParameter(f"there are {BLOCK:,} edits for a seed", param_hint="--edits")
    plan = BenchPlan(
        editors=(*chosen, *trained),
        counts=counts,
        probed=probes,
        seeds=seeds,
        baseline_seeds=baseline_seeds,
        groups=groups,
        dataset=dataset,
        path=None if path is None else str(path),
        model=model,
        edits_off=edits_off,
        verify_every=verify_every,
        also=tuple(trained.items()),
    )
    torch.set_num_threads(1)
    try:
        with _bars() as progress:
            run_bench(plan, out, resume=resume, processes=processes, progress=progress)
        _write(plan, out)
    except EditingError as error:
        typer.echo(f"errata: {error.message} {error.hint} ({error.code})", err=True)
        raise typer.Exit(1) from error


def _names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in (*known, "unedited")]
    if unknown or not names:
        told = f"unknown: {', '.join(unknown)}; known: {', '.join(known)}"
        raise typer.BadParameter(told, param_hint="--editors")
    return names


def _trained(pairs: list[str], known: tuple[str, ...]) -> dict[str, str]:
    """`NAME=FOLDER` by name; names become names of files."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, folder = pair.partition("=")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or not folder:
            told = f"not NAME=FOLDER, or NAME is not of a-z, 0-9, - and _: {pair}"
            raise typer.BadParameter(told, param_hint="--also")
        if name in (*known, "unedited", *found):
            raise typer.BadParameter(f"the name is taken: {name}", param_hint="--also")
        found[name] = folder
    return found


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(sorted({int(part.replace("_", "")) for part in text.split(",")}))
    except ValueError as error:
        raise typer.BadParameter(f"not numbers: {text}", param_hint="--edits") from error
    if counts[0] < 1:
        raise typer.BadParameter("an edit count is at least 1", param_hint="--edits")
    return counts


def _write(plan: BenchPlan, out: Path) -> None:
    """Tables, figures for programs, and plots, from whatever lines there are."""
    from editing_core.evaluation.machine import facts
    from editing_core.evaluation.plots import draw_plots
    from editing_core.evaluation.run_log import read_settings
    from editing_core.evaluation.summary import read_run, summarise
    from editing_core.evaluation.tables import report

    summary, settings = summarise(read_run(out, plan.editors)), read_settings(out)
    told = {"settings": settings, "facts": facts(), **summary.as_json()}
    figures, page = out / "figures.json", out / "report.md"
    figures.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    page.write_text(report(summary, settings, facts=facts()), "utf-8")
    for path in (page, figures, *draw_plots(summary, out / "plots")):
        typer.echo(f"wrote {path}")


@contextmanager
def _bars() -> Iterator[Progress]:
    """A bar for the whole run, and one for each contender under way."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from editing_core.evaluation.bench_run import OVERALL

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        tasks: dict[str, int] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=total)
            unfinished = what == OVERALL or done < total
            shown.update(tasks[what], completed=done, total=total, visible=unfinished)  # type: ignore[arg-type]

        yield progress
