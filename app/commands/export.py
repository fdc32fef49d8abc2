"""`errata export`: edits with their pictures in one file, to be kept or made on another server."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.batch import RETRIES
from app.commands.client import fail, server
from app.commands.progress import counted
from app.commands.tables import AsJson, Url, print_json

if TYPE_CHECKING:
    from app.errata import Versions

app = typer.Typer(add_completion=False)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    status: Annotated[
        str, typer.Option(help="active (those in force), superseded, rolled_back, stale or all.")
    ] = "active",
    text: Annotated[str | None, typer.Option("--search", help="In prompt or target.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file, if it is there.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write edits and their pictures into one archive. A key with the scope infer is enough.

    `errata import` makes them on another server, whatever model that one serves: what is kept is
    what was asked for, not the numbers that came of it. Edits that are not committed, or are
    damaged, are left out.

    Example: errata export corrections.zip --tag flags
    """
    from app.commands.archive import ArchiveWriter

    if file.exists() and not force:
        raise fail(f"{file} is there already; --force replaces it")
    with server(url, retries=RETRIES) as client:
        running = client.versions()
        left_out = 0
        exported_at = datetime.now(UTC).isoformat(timespec="seconds")
        wanted = client.edits(status=status, search=text, tag=tag)
        total = running.active_edits if (status, text, tag) == ("active", None, None) else None
        try:
            with ArchiveWriter(file) as archive:
                for edit in counted(wanted, "edits", total=total):
                    if edit.version is None or edit.status == "quarantined":
                        left_out += 1
                        continue
                    archive.add(edit, partial(client.picture, edit.id))
                edits, pictures = archive.counts
                archive.finish(exported_at=exported_at, server=_source(running))
        except OSError as error:
            raise fail(f"cannot write {file}: {error.strerror or error}") from error
    if as_json:
        print_json({"file": str(file), "edits": edits, "pictures": pictures, "left_out": left_out})
        return
    typer.echo(f"{file}: {edits} edits, {pictures} pictures")
    if left_out:
        typer.echo(f"errata: {left_out} edits are not committed or damaged: left out", err=True)


def _source(running: Versions) -> dict[str, object]:
    """What the archive says of the server it came from."""
    return {
        "version": running.version,
        "backbone": running.backbone.name,
        "backbone_fingerprint": running.backbone.fingerprint,
    }
