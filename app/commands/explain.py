"""`errata explain`: which edits a question meets, and why each one acts or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.client import base64_of, post
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
    """
    body = {"image": base64_of(image), "prompt": question, "explain": True}
    answer = post(
        url, "/generate", body | ({} if at_version is None else {"at_version": at_version})
    )
    if as_json:
        print_json(answer)
        return
    typer.echo(answer["text"])
    if not answer["candidates"]:
        typer.echo("no edit has a picture near to this one", err=True)
        return
    print_table(
        ("edit", "outcome", "picture", "words", "weight", "matched"),
        [
            (c["edit_id"], c["outcome"], *(f"{c[n]:.3f}" for n in _NUMBERS), c["matched"])
            for c in answer["candidates"]
        ],
    )


_NUMBERS = ("image_similarity", "text_similarity", "weight")
