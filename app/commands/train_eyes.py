"""`errata train-eyes`: the eyes, on pictures of pinned Debian packages and on drawn ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from app.commands.progress import bars
from editing_core.errors import EditingError

app = typer.Typer(add_completion=False)


@app.command()
def train_eyes(
    out: Annotated[Path, typer.Option(help="Folder for the finished eyes.")],
    work: Annotated[Path, typer.Option(help="Folder for features and checkpoints.")] = Path(
        "train-eyes"
    ),
    cache: Annotated[
        Path, typer.Option(help="Folder for packages and their pictures (about 2 GB).")
    ] = Path("train-eyes/pictures"),
    steps: Annotated[int, typer.Option(min=1, help="Steps of the head.")] = 1500,
    judge_steps: Annotated[int, typer.Option(min=1, help="Steps of the judge.")] = 900,
    pictures: Annotated[
        int, typer.Option(min=64, help="Pictures to train on, a share of each kind.")
    ] = 4000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Teach the eyes which pictures are the same one, shown again.

    Fetches Debian packages of wallpapers and icons (apt-get and dpkg-deb; pinned, checked by
    sha256), looks at their pictures and at what people make of them (crop, border, screenshot),
    trains a head on what it saw, gates that tell emblems from all else, and a judge that lays two
    pictures side by side. Then it sets the thresholds on pictures held out. Run the same
    command again after a kill: what is fetched and looked at is kept, and training goes on at its
    last checkpoint. A first try takes minutes:

        errata train-eyes --out my-eyes --steps 50 --judge-steps 20 --pictures 300

    Then name the folder with --eyes (errata serve).
    """
    import torch

    from editing_core.editable_model import EditableModel
    from editing_core.training.eye_run import train_eyes as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    try:
        model = EditableModel.load(editors=(), questions="none", eyes="none")
        with bars() as (notify, report):
            figures = run(
                model.backbone,
                out=out,
                work=work,
                cache=cache,
                tau=model.router.tau,
                steps=steps,
                judge_steps=judge_steps,
                pictures=pictures,
                seed=seed,
                notify=notify,
                report=report,
            )
    except EditingError as error:
        typer.echo(f"errata: cannot train: {error.message} {error.hint}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"wrote {out}")
    for name, figure in figures.items():
        typer.echo(f"  {name:44} {figure:.4f}")
