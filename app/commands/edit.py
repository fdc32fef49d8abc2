"""`errata edit`: correct what a running server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import base64_of, post

app = typer.Typer(add_completion=False)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or GIF.")],
    question: Annotated[str, typer.Argument(help="What is asked.")],
    answer: Annotated[str, typer.Argument(help="What the answer must be.")],
    url: Annotated[str | None, typer.Option(help="The server. [ERRATA_URL]")] = None,
    editor: Annotated[
        str | None, typer.Option(help="liveedit or visedit; default: the server's.")
    ] = None,
    verify: Annotated[str, typer.Option(help="strict, report or off.")] = "strict",
    note: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Print the id of the edit, and on stderr the answers before and after it."""
    made = post(
        url,
        "/edits",
        {
            "image": base64_of(image),
            "prompt": question,
            "target": answer,
            "editor": editor,
            "verify": verify,
            "note": note,
        },
    )
    typer.echo(made["id"])
    typer.echo(f"version {made['version']}: {made['before']!r} -> {made['after']!r}", err=True)
