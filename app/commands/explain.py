"""`errata explain`: which edits a question meets, and why each one acts or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json, print_table

app = typer.Typer(add_completion=False)


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, WebP or GIF.")],
    question: Annotated[str, typer.Argument(help="What to ask.")],
    at_version: Annotated[int | None, typer.Option(help="With the edits of then.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the answer, then every edit whose picture is near, and what became of it.

    `applied` acts. `errata scope` adds a wording that was missed, or one that must be left alone.

    Example: errata explain flag.png "Capital city?" --at-version 17
    """
    with server(url) as client:
        answer = client.explain(image, question, at_version=at_version)
    if as_json:
        print_json(answer.to_dict())
        return
    typer.echo(answer.text)
    if not answer.candidates:
        typer.echo("no edit has a picture near to this one", err=True)
        return
    print_table(
        ("edit", "outcome", "picture", "words", "weight", "matched"),
        [
            (
                each.edit_id,
                each.outcome,
                *(
                    f"{number:.3f}"
                    for number in (each.image_similarity, each.text_similarity, each.weight)
                ),
                each.matched,
            )
            for each in answer.candidates
        ],
    )
