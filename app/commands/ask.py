"""`errata ask`: a question about a picture, answered by a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json

app = typer.Typer(add_completion=False)


@app.command()
def ask(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or GIF.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    url: Url = None,
    edits: Annotated[bool, typer.Option(help="With the edits, or the base model alone.")] = True,
    explain: Annotated[
        bool, typer.Option(help="All of it as JSON, with the edits that came near.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the model's answer, and on stderr which edits took part in it.

    Example: errata ask flag.png "What is the capital?"
    """
    with server(url) as client:
        answer = client.generate(question, image, edits=edits, explain=explain)
    if explain or as_json:
        print_json(answer.to_dict())
        return
    typer.echo(answer.text)
    for applied in answer.applied:
        typer.echo(f"edit {applied.edit_id} (weight {applied.weight:.2f})", err=True)
