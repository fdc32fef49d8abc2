"""`errata edits`: what was corrected, as a table; or one edit, with its history."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json, print_table

app = typer.Typer(add_completion=False)

_COLUMNS = ("id", "version", "status", "prompt", "target")


@app.command()
def edits(
    edit_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One edit only.")] = None,
    status: Annotated[
        str,
        typer.Option(
            help="active, superseded, rolled_back, stale, quarantined, pending, failed, "
            "cancelled or all."
        ),
    ] = "all",
    text: Annotated[str | None, typer.Option("--search", help="In prompt or target.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List edits, newest first; or show one with everything that happened to it.

    Examples: errata edits --status active --search capital

    errata edits 01J9Z3N8Q4T7V5K2M6W0X1Y8B3
    """
    if edit_id is not None:
        with server(url) as client:
            _show(client.get_edit(edit_id).to_dict(), as_json)
        return
    with server(url) as client:
        wanted = client.edits(status=status, search=text, tag=tag, limit=limit)
        listed = [edit.to_dict() for edit in wanted]
    if as_json:
        print_json(listed)
        return
    print_table(
        (*_COLUMNS, "fired", "by", "at"),
        [
            (
                *(edit[name] for name in _COLUMNS),
                edit["fired"]["count"],
                edit["created_by"],
                edit["created_at"],
            )
            for edit in listed
        ],
    )


def _show(edit: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(edit)
        return
    names = ("id", "version", "status", "editor", "prompt", "target", "before", "after", "verified")
    lines = [(name, edit[name]) for name in (*names, "created_at", "created_by", "note")]
    fired = edit["fired"]
    lines += [("fired", f"at least {fired['count']} times, last {fired['last_at'] or 'never'}")]
    lines += [("rephrase", wording) for wording in edit["rephrases"]]
    lines += [("not for", wording) for wording in edit["not_for"]]
    print_table(("edit", ""), lines)
    typer.echo()
    print_table(
        ("version", "event", "at", "by", "reason"),
        [(e["version"], e["type"], e["at"], e["actor"], e["reason"]) for e in edit["history"]],
    )
