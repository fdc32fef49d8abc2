"""`errata eval-default`: the embedded model's figures beside their marks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress, TaskID

app = typer.Typer(add_completion=False)


@app.command()
def eval_default(
    quick: Annotated[
        bool, typer.Option("--quick", help="A tenth of the probes: a first look in seconds.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Another checkpoint folder of the same world.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures as JSON.")] = None,
) -> None:
    """Measure the embedded model: perception, knowledge, text only, image keys.

    Free greedy generation, exact match, on emblems, views and wordings never trained on. Takes a
    few minutes on two cores; exits with 1 when a mark is missed.

    Example: errata eval-default --quick
    """
    from editing_core.editable_model import EditableModel
    from editing_core.evaluation.base_model import Sizes, evaluate_base_model
    from editing_core.evaluation.report import as_markdown, write_json

    loaded = EditableModel.load(model)
    bars: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True)) as shown:

        def progress(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(name, total=total)
            shown.update(bars[name], completed=done)

        sizes = Sizes.quick() if quick else Sizes()
        figures = evaluate_base_model(loaded, sizes, progress=progress)
    console = Console()
    if console.is_terminal:
        console.print(Markdown(as_markdown(figures)))
    else:
        typer.echo(as_markdown(figures))
    if out is not None:
        write_json(figures, out)
    if any(figure.is_reached is False for figure in figures):
        raise typer.Exit(1)
