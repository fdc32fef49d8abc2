"""`errata sample`: pictures of the embedded world to try edits on, with every answer known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from editing_core.heraldry.emblem import Split
from editing_core.heraldry.sample import draw_sample

app = typer.Typer(add_completion=False)


@app.command()
def sample(
    seed: Annotated[int, typer.Option(min=0, help="Which emblem. Same seed, same emblem.")] = 0,
    view: Annotated[int, typer.Option(min=0, help="Which view of it; 0 is an ordinary one.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="PNG to write; a folder when drawing several.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="'unseen' (new to the model) or 'known' (it knows their facts).")
    ] = "unseen",
    change: Annotated[
        str | None,
        typer.Option(help="Draw the look-alike in which this one attribute is visibly changed."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Draw this many emblems, from --seed on, into --out.")
    ] = None,
    views: Annotated[
        str, typer.Option(help="With --count: which views of each, separated by commas.")
    ] = "0",
) -> None:
    """Draw emblems and print what is known about each as one line of JSON.

    `alternatives` are wrong answers of the right kind: use one as the target of an edit.

    Examples:

        errata sample --seed 7 --out emblem.png

        errata sample --seed 7 --view 1 --out other-view.png

        errata sample --seed 7 --change border --out look-alike.png

        errata sample --seed 100 --count 20 --views 0,1 --out emblems/
    """
    if split not in ("unseen", "known"):
        raise typer.BadParameter("give 'unseen' or 'known'", param_hint="--split")
    which: Split = "known" if split == "known" else "unseen"
    if count is None:
        target = out or Path("emblem.png")
        _draw(seed, view, which, change, target)
        return
    folder = out or Path("emblems")
    numbers = _view_numbers(views)
    for number in range(seed, seed + count):
        for shown in numbers:
            suffix = f"-{change}" if change else ""
            _draw(number, shown, which, change, folder / f"{split}-{number}-{shown}{suffix}.png")


def _draw(seed: int, view: int, split: Split, change: str | None, path: Path) -> None:
    try:
        drawn = draw_sample(seed, view=view, split=split, changed=change)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0]), param_hint="--change") from error
    drawn.save(path)
    typer.echo(json.dumps(drawn.describe(str(path)), ensure_ascii=False))


def _view_numbers(views: str) -> list[int]:
    try:
        numbers = [int(part) for part in views.split(",")]
    except ValueError as error:
        raise typer.BadParameter("give numbers, as in 0,1,2", param_hint="--views") from error
    if min(numbers) < 0:
        raise typer.BadParameter("views are numbered from 0", param_hint="--views")
    return numbers
