"""`errata ask`: a question about a picture, answered by a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import base64_of, post

app = typer.Typer(add_completion=False)


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or GIF.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    url: Annotated[str | None, typer.Option(help="The server. [ERRATA_URL]")] = None,
    edits: Annotated[bool, typer.Option(help="With the edits, or the base model alone.")] = True,
    explain: Annotated[bool, typer.Option(help="Print the whole answer as JSON.")] = False,
) -> None:
    """Print the model's answer, and on stderr which edits took part in it."""
    answer = post(
        url,
        "/generate",
        {
            "image": base64_of(image),
            "prompt": question,
            "edits": "on" if edits else "off",
            "explain": explain,
        },
    )
    if explain:
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    typer.echo(answer["text"])
    for applied in answer["applied"]:
        typer.echo(f"edit {applied['edit_id']} (weight {applied['weight']:.2f})", err=True)
