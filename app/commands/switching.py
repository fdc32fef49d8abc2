"""`errata rollback`, `reinstate`, `restore`: take back, put back, return to an earlier version."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json
from app.errata import Switched

rollback_app = typer.Typer(add_completion=False)
reinstate_app = typer.Typer(add_completion=False)
restore_app = typer.Typer(add_completion=False)

EditId = Annotated[str, typer.Argument(metavar="ID", help="As `errata edits` lists it.")]
Reason = Annotated[str | None, typer.Option(help="For people; kept in the log.")]


@rollback_app.command()
def rollback(
    edit_id: EditId, reason: Reason = None, url: Url = None, as_json: AsJson = False
) -> None:
    """Take one edit back. Nothing is deleted, and what it superseded is active again.

    Example: errata rollback 01J9Z3N8Q4T7V5K2M6W0X1Y8B3 --reason "the old name is right"
    """
    with server(url) as client:
        _switched(client.rollback(edit_id, reason=reason), as_json)


@reinstate_app.command()
def reinstate(
    edit_id: EditId,
    reason: Reason = None,
    force: Annotated[bool, typer.Option(help="Also one that other weights made.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Put one edit back that was taken back.

    Example: errata reinstate 01J9Z3N8Q4T7V5K2M6W0X1Y8B3
    """
    with server(url) as client:
        _switched(client.reinstate(edit_id, reason=reason, force=force), as_json)


@restore_app.command()
def restore(
    version: Annotated[int, typer.Argument(min=0, help="0 is the base model.")],
    reason: Reason = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Return to the edits of an earlier version. That is a new version, so it can be undone too.

    Example: errata restore 17 --reason "back to Tuesday"
    """
    with server(url) as client:
        done = client.restore(version, reason=reason)
    if as_json:
        print_json(done.to_dict())
        return
    if not done.changed:
        typer.echo(f"nothing to change; the version is {done.version}")
        return
    kinds = (
        ("rolled back", done.rolled_back),
        ("reinstated", done.reinstated),
        ("superseded", done.superseded),
        ("rescoped", done.rescoped),
    )
    counts = ", ".join(f"{len(ids)} {kind}" for kind, ids in kinds if ids)
    typer.echo(f"version {done.version}: {counts or 'restored'}")


def _switched(outcome: Switched, as_json: bool) -> None:
    if as_json:
        print_json(outcome.to_dict())
        return
    change = f"version {outcome.version}" if outcome.changed else "nothing to change"
    typer.echo(f"{change}: edit {outcome.edit.id} is {outcome.edit.status}")
