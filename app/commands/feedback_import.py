"""`errata feedback import FILE`: what people said of answers elsewhere, brought here."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.client import fail, server
from app.commands.feedback_files import Record, Unreadable, read
from app.commands.tables import Url
from app.errata import Client, Refused

_HOPELESS = frozenset({"feedback_full", "rate_limited", "invalid_api_key", "insufficient_scope"})
"""Refusals that every record after it would meet too."""


class Format(StrEnum):
    OPENWEBUI = "openwebui"
    CSV = "csv"


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What was exported.")],
    kind: Annotated[
        Format | None, typer.Option("--format", help="By default, by the file's ending.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of Open WebUI's uploads, where it only names them.")
    ] = None,
    right: Annotated[bool, typer.Option("--right", help="Take answers rated right, too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the file, send nothing.")
    ] = False,
    url: Url = None,
) -> None:
    """Import reports from Open WebUI's feedback export (JSON), or from a CSV.

    Each is taken in once, however often this is run. A line of JSON on stdout says what became of
    each record. Exit status 1 if any could not be taken.

    Examples: errata feedback import feedback-history-export.json --pictures uploads --dry-run

    errata feedback import complaints.csv
    """
    from rich.console import Console
    from rich.progress import track

    try:
        records = read(file, kind or _kind_of(file), pictures=pictures)
    except Unreadable as error:
        raise fail(str(error)) from error
    ends: Counter[str] = Counter()
    console = Console(stderr=True)
    with server(url, retries=3) as client:
        for record in track(records, "reports", console=console, transient=True):
            result = _take(record, client, takes_right=right, is_dry=dry_run)
            ends[result["status"]] += 1
            typer.echo(json.dumps({"record": record.number, **result}, ensure_ascii=False))
            if result.get("error", {}).get("code") in _HOPELESS:
                ends["not sent"] = len(records) - sum(ends.values())
                break
    counts = ", ".join(f"{count} {status}" for status, count in ends.items() if count)
    typer.echo(f"errata: {len(records)} records: {counts or 'nothing in it'}", err=True)
    if ends["unreadable"] or ends["refused"]:
        raise typer.Exit(1)


def _kind_of(file: Path) -> str:
    kinds = {".json": "openwebui", ".csv": "csv"}
    if file.suffix.lower() not in kinds:
        raise fail(f"{file}: neither .json nor .csv; say which it is with --format")
    return kinds[file.suffix.lower()]


def _take(record: Record, client: Client, *, takes_right: bool, is_dry: bool) -> dict[str, Any]:
    if record.problem is not None:
        return {"status": "unreadable", "message": record.problem}
    if record.is_skipped:
        return {"status": "skipped", "message": "nobody rated it"}
    body = dict(record.body or {})
    if body["verdict"] == "right" and not takes_right:
        return {"status": "skipped", "message": "it was rated right"}
    if is_dry:
        return {"status": "to import", "has_picture": "image" in body, "prompt": body["prompt"]}
    try:
        made = client.import_feedback(body)
    except Refused as refusal:
        return {"status": "refused", "error": refusal.fields}
    return {
        "status": "known" if made.known else "imported",
        "id": made.id,
        "report": made.status,
    }
