"""`errata rollback`, `reinstate`, `restore`: take back, put back, return to an earlier version."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.commands.client import post
from app.commands.tables import AsJson, Url, print_json

rollback_app = typer.Typer(add_completion=False)
reinstate_app = typer.Typer(add_completion=False)
restore_app = typer.Typer(add_completion=False)

EditId = Annotated[str, typer.Argument(metavar="ID", help="As `errata edits` lists it.")]
Reason = Annotated[str | None, typer.Option(help="For people; kept in the log.")]


@rollback_app.command()
def rollback(
    edit_id: EditId, reason: Reason = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Take one edit back. Nothing is deleted, and what it superseded is active again."""
    _switched(post(url, f"/admin/edits/{quote(edit_id, safe='')}/rollback", _body(reason)), as_json)


@reinstate_app.command()
def reinstate(
    edit_id: EditId,
    reason: Reason = None,
    force: Annotated[bool, typer.Option(help="Also one that other weights made.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put one edit back that was taken back."""
    body = _body(reason) | ({"force": True} if force else {})
    _switched(post(url, f"/admin/edits/{quote(edit_id, safe='')}/reinstate", body), as_json)


@restore_app.command()
def restore(
    version: Annotated[int, typer.Argument(min=0, help="0 is the base model.")],
    reason: Reason = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Return to the edits of an earlier version. That is a new version, so it can be undone too."""
    done = post(url, "/admin/rollback", {"to_version": version} | _body(reason))
    if as_json:
        print_json(done)
        return
    if not done["changed"]:
        typer.echo(f"nothing to change; the version is {done['version']}")
        return
    counts = ", ".join(
        f"{len(done[what])} {what.replace('_', ' ')}"
        for what in ("rolled_back", "reinstated", "superseded", "rescoped")
        if done.get(what)
    )
    typer.echo(f"version {done['version']}: {counts or 'restored'}")


def _body(reason: str | None) -> dict[str, Any]:
    return {} if reason is None else {"reason": reason}


def _switched(outcome: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(outcome)
        return
    edit = outcome["edit"]
    change = f"version {outcome['version']}" if outcome["changed"] else "nothing to change"
    typer.echo(f"{change}: edit {edit['id']} is {edit['status']}")
