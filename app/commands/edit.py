"""`errata edit`: correct what a running server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.batch import make_all
from app.commands.client import fail, server
from app.commands.tables import AsJson, Url, print_json
from app.errata import Client, Edit
from app.errata.models import Verify
from app.errata.requests import made_of

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
    url: Url = None,
    editor: Annotated[
        str | None, typer.Option(help="liveedit or visedit; default: the server's.")
    ] = None,
    verify: Annotated[Verify, typer.Option(help="strict, report or off.")] = "strict",
    note: Annotated[str | None, typer.Option(help="For people.")] = None,
    as_json: AsJson = False,
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
    with server(url) as client:
        made = client.begin_edit(image, question, answer, editor=editor, verify=verify, note=note)
        if made.is_pending:
            made = _follow(client, made.id)
        made = made_of(made)
    if as_json:
        print_json(made.to_dict())
        return
    typer.echo(made.id)
    for warning in made.warnings:
        typer.echo(f"warning: {warning.message} ({warning.code})", err=True)
    typer.echo(f"version {made.version}: {made.before!r} -> {made.after!r}", err=True)


def _follow(client: Client, edit_id: str) -> Edit:
    """The edit, once it is no longer pending. Its progress is drawn on stderr."""
    while True:
        try:
            return _watch(client, edit_id)
        except KeyboardInterrupt:
            if typer.confirm(f"\nCancel edit {edit_id}?", err=True):
                return client.cancel(edit_id)
            if not typer.confirm("Go on watching it?", default=True, err=True):
                raise fail(
                    f"edit {edit_id} goes on in the server; GET /edits/{edit_id} says how"
                ) from None


def _watch(client: Client, edit_id: str) -> Edit:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as drawn:
        bar = drawn.add_task("queue", total=None)

        def show(edit: Edit) -> None:
            if (progress := edit.progress) is not None:
                drawn.update(
                    bar, description=progress.stage, completed=progress.done, total=progress.total
                )

        return client.settle(edit_id, on_progress=show, poll_s=POLL_S)
