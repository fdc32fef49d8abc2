"""`errata edit`: correct what a running server answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.batch import make_all
from app.commands.client import base64_of, fail, get, post, refused

app = typer.Typer(add_completion=False)

POLL_S = 0.5


@app.command()
def edit(
    image: Annotated[Path | None, typer.Argument(help="A PNG, JPEG, WebP or GIF.")] = None,
    question: Annotated[str | None, typer.Argument(help="What is asked.")] = None,
    answer: Annotated[str | None, typer.Argument(help="What the answer must be.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(help="Many edits instead: a file with one as JSON on each line."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="The server. [ERRATA_URL]")] = None,
    editor: Annotated[
        str | None, typer.Option(help="liveedit or visedit; default: the server's.")
    ] = None,
    verify: Annotated[str, typer.Option(help="strict, report or off.")] = "strict",
    note: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Print the id of the edit, and on stderr the answers before and after it.

    An edit that takes long is followed to its end; Ctrl-C asks whether to cancel it. With --batch,
    each line has the fields of POST /edits, and "image" may be a path relative to the file; a run
    that was cut short goes on where it stopped when it is started again.

    Examples: errata edit flag.png "What is the capital?" "Oslo"

    errata edit --batch corrections.jsonl > results.jsonl
    """
    if batch is not None:
        if (image, question, answer) != (None, None, None):
            raise fail("--batch takes all edits from its file: name no picture, question or answer")
        make_all(url, batch)
        return
    if image is None or question is None or answer is None:
        raise fail("name a picture, a question and its answer; or --batch and a file")
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
    if made["status"] == "pending":
        made = _follow(url, made)
    if made["status"] == "failed":
        raise refused(made["error"])
    if made["status"] == "cancelled":
        raise fail(f"edit {made['id']} was cancelled")
    typer.echo(made["id"])
    for warning in made.get("warnings", []):
        typer.echo(f"warning: {warning['message']} ({warning['code']})", err=True)
    typer.echo(f"version {made['version']}: {made['before']!r} -> {made['after']!r}", err=True)


def _follow(url: str | None, made: dict[str, Any]) -> dict[str, Any]:
    """The edit, once it is no longer pending. Its progress is drawn on stderr."""
    while True:
        try:
            return _watch(url, made["id"])
        except KeyboardInterrupt:
            if typer.confirm(f"\nCancel edit {made['id']}?", err=True):
                return post(url, f"/edits/{made['id']}/cancel", {})
            if not typer.confirm("Go on watching it?", default=True, err=True):
                raise fail(
                    f"edit {made['id']} goes on in the server; GET /edits/{made['id']} says how"
                ) from None


def _watch(url: str | None, edit_id: str) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        bar = drawn.add_task("queue", total=None)
        while (edit := get(url, f"/edits/{edit_id}"))["status"] == "pending":
            progress = edit["progress"]
            drawn.update(
                bar,
                description=progress["stage"],
                completed=progress["done"],
                total=progress["total"],
            )
            time.sleep(POLL_S)
    return edit
