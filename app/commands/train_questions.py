"""`errata train-questions`: the question encoder, on a corpus of questions and confusables."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from app.commands.progress import bars
from editing_core.errors import EditingError

app = typer.Typer(add_completion=False)


@app.command()
def train_questions(
    out: Annotated[Path, typer.Option(help="Folder for the finished encoder.")],
    corpus: Annotated[
        Path | None, typer.Option(help="Folder of .jsonl files. [the shipped corpus]")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="Folder of a sentence encoder. [the pinned package's]")
    ] = None,
    work: Annotated[Path, typer.Option(help="Folder for checkpoints.")] = Path("train-questions"),
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    measure_every: Annotated[int, typer.Option(min=1, help="Steps between measurements.")] = 100,
) -> None:
    """Teach a sentence encoder when two questions about a picture ask for the same thing.

    Topics are split by name: of ten, eight are trained on, one sets the thresholds, and the last
    gives the figures that are reported. Run the same command again after a kill: it goes on at its
    last checkpoint. Then name the folder with --question-encoder (errata serve).

    Example: errata train-questions --out my-questions --threads 8
    """
    import torch

    from editing_core.training.question_run import train_encoder

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    try:
        with bars() as (_, report):
            figures = train_encoder(
                out=out,
                corpus=corpus,
                base=base,
                work=work,
                steps=steps,
                seed=seed,
                measure_every=measure_every,
                report=report,
            )
    except EditingError as error:
        typer.echo(f"errata: cannot train: {error.message} {error.hint}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"wrote {out}")
    for name, figure in figures.items():
        typer.echo(f"  {name:40} {figure:.3f}")
