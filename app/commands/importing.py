"""`errata import`: the edits of an archive, made again on a server that may serve another model.

Each edit is made once however often the command runs: what is in force there already is passed
over, and every request has an idempotency key drawn from the archive.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import batch
from app.commands.batch import COMMITTED, RETRIES
from app.commands.client import fail, server
from app.commands.progress import counted
from app.commands.tables import AsJson, Url, print_table
from app.errata.models import Verify

if TYPE_CHECKING:
    from app.commands.archive import ArchiveReader, Entry
    from app.errata import Client, Edit

app = typer.Typer(add_completion=False)

_WANTED = ("active", "superseded", "stale")
"""What held when it was exported, or would but for a newer one, or for other weights."""


@app.command("import")
def import_edits(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="As `errata export` wrote it.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the archive and say what would be made.")
    ] = False,
    verify: Annotated[Verify, typer.Option(help="strict, report or off.")] = "strict",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Make the edits of an archive on a server, oldest first. Needs a key with the scope edit.

    Killed and run again, it goes on where it stopped. What the server refuses is listed at the
    end, and the exit status is then 1: look at it, and try again with --verify report. Edits that
    were rolled back are left out. With --json, a line for each edit.

    Example: errata import corrections.zip --dry-run
    """
    from app.commands.archive import ArchiveReader, BadArchive

    try:
        with ArchiveReader(file) as archive, server(url, retries=RETRIES) as client:
            _check(archive)
            run = Run(client, archive, verify, dry_run=dry_run)
            for result in counted(run.results(), "edits", total=archive.manifest.edits):
                if as_json:
                    typer.echo(json.dumps(result, ensure_ascii=False))
    except BadArchive as error:
        raise fail(str(error)) from error
    if not as_json:
        run.show_refused()
    typer.echo(f"errata: {run.summary()}", err=True)
    if run.refused:
        raise typer.Exit(1)


def _check(archive: ArchiveReader) -> None:
    """The whole of it is read before anything is sent. Raises `BadArchive`."""
    for entry in archive.entries():
        archive.picture(entry)


@dataclass(slots=True)
class Run:
    """One import. `here` tells old ids from new ones, so that edits replace what they replaced."""

    client: Client
    archive: ArchiveReader
    verify: Verify
    dry_run: bool
    refused: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    here: dict[str, str] = field(default_factory=dict)

    def results(self) -> Iterator[dict[str, Any]]:
        """What came of each edit, as it is known."""
        editors = set(self.client.versions().editors)
        present = {_identity(edit): edit.id for edit in self.client.edits(status="active")}
        for entry in self.archive.entries():
            result = {"from": entry.id} | self._one(entry, editors, present)
            if (edit_id := result.get("id")) is not None:
                self.here[entry.id] = edit_id
            self.counts[result["status"]] += 1
            if "error" in result:
                self.refused.append(result | {"prompt": entry.prompt, "target": entry.target})
            yield result

    def _one(self, entry: Entry, editors: set[str], present: dict[bytes, str]) -> dict[str, Any]:
        if entry.status not in _WANTED:
            return {"status": "left out"}
        if (edit_id := present.get(_identity(entry))) is not None:
            return {"status": "present", "id": edit_id}
        if self.dry_run:
            return {"status": "to be made"}
        result = batch.make_once(self.client, self._fields(entry, editors), key=_key(entry))
        if result.get("error", {}).get("code") == "idempotency_mismatch":
            return {"status": "made before"}  # from this archive, with other options
        return result

    def _fields(self, entry: Entry, editors: set[str]) -> dict[str, Any]:
        """As `POST /edits` takes it."""
        picture = base64.b64encode(self.archive.picture(entry)).decode("ascii")
        return {
            "image": f"data:image/png;base64,{picture}",
            "prompt": entry.prompt,
            "target": entry.target,
            "rephrases": entry.rephrases,
            "not_for": entry.not_for,
            "editor": entry.editor if entry.editor in editors else None,
            "verify": self.verify,
            "supersedes": [self.here[each] for each in entry.supersedes if each in self.here],
            "note": entry.note,
            "tags": entry.tags,
        }

    def show_refused(self) -> None:
        if self.refused:
            print_table(
                ("edit", "prompt", "target", "code", "why"),
                [
                    (each["from"], each["prompt"], each["target"], error["code"], error["message"])
                    for each in self.refused
                    for error in (each["error"],)
                ],
            )

    def summary(self) -> str:
        made = sum(self.counts[status] for status in COMMITTED)
        parts = [f"{made} of {self.archive.manifest.edits} edits are made"]
        names = {"present": "in force already"}
        parts += [
            f"{self.counts[status]} {names.get(status, status)}"
            for status in ("to be made", "present", "made before", "left out")
            if self.counts[status]
        ]
        return ", ".join([*parts, f"{len(self.refused)} refused"])


def _identity(edit: Entry | Edit) -> bytes:
    """Two edits with the same say the same of the same picture."""
    said = [edit.image_digest, edit.prompt, edit.target, sorted(edit.rephrases)]
    return hashlib.sha256(json.dumps([*said, sorted(edit.not_for)]).encode()).digest()


def _key(entry: Entry) -> str:
    """The same for the same line of an archive, whatever the options."""
    return f"import-{hashlib.sha256(entry.id.encode() + _identity(entry)).hexdigest()[:40]}"
