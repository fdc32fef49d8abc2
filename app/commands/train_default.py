"""`errata train-default`: the embedded model, from nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def train_default(
    out: Annotated[Path, typer.Option(help="Folder for the finished `model/` and `clip/`.")],
    work: Annotated[
        Path, typer.Option(help="Folder for drawn views and checkpoints (about 7 GB).")
    ] = Path("train-default"),
    processes: Annotated[
        int, typer.Option(min=1, help="One-thread processes that train together.")
    ] = 2,
    eyes_steps: Annotated[int, typer.Option(help="Steps of stage one, the vision tower.")] = 4800,
    language_steps: Annotated[
        str, typer.Option(help="Steps of stage two's stretches: all, more wordings, more facts.")
    ] = "1600,500,170,1000",
    caption_steps: Annotated[int, typer.Option(help="Steps of stage three, CLIP's text.")] = 300,
) -> None:
    """Train the embedded model: eyes, language, captions, then put the checkpoints together.

    Run the same command again after a kill: each stage resumes at its last checkpoint, and ends
    with the weights of a run that was never killed. Then train the router and the editors with
    `errata train`.

    Example: errata train-default --out checkpoints/mine --processes 8
    """
    from editing_core.heraldry.recipe.assemble import assemble
    from editing_core.heraldry.recipe.captions import train_captions
    from editing_core.heraldry.recipe.eyes import train_eyes
    from editing_core.heraldry.recipe.language import train_language

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train_eyes(work, steps=eyes_steps, processes=processes)
    stretches = [int(steps) for steps in language_steps.split(",")]
    train_language(work, steps=stretches, processes=processes)
    train_captions(work, steps=caption_steps)
    assemble(work, out)
    typer.echo(f"wrote {out}/model and {out}/clip")
