"""`errata keys`: who may use a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json
from app.errata.models import KeyScope

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="API keys of a running server. A key may infer (ask), edit (ask and correct), or admin "
    "(all). ERRATA_API_KEY is the key that these commands use themselves; the first key of a "
    "server on this machine needs none.",
)


@app.command()
def create(
    label: Annotated[str, typer.Argument(help="Whose it is; kept in the audit trail.")],
    scope: Annotated[KeyScope, typer.Option(help="infer < edit < admin.")] = "infer",
    requests_per_minute: Annotated[int | None, typer.Option(help="No limit if left out.")] = None,
    edits_per_day: Annotated[int | None, typer.Option(help="No limit if left out.")] = None,
    url: Url = None,
) -> None:
    """Make a key and print its token. It is shown this once.

    Example: errata keys create "support desk" --scope edit --edits-per-day 200
    """
    with server(url) as client:
        made = client.create_key(
            label, scope, requests_per_minute=requests_per_minute, edits_per_day=edits_per_day
        )
    typer.echo(f"errata: the key {made.id} ({made.label}, {made.scope}); keep it:", err=True)
    typer.echo(made.token)


@app.command("list")
def list_keys(url: Url = None, as_json: AsJson = False) -> None:
    """Print all keys: id, scope, label, when it was made or revoked.

    Example: errata keys list --json
    """
    with server(url) as client:
        known = client.list_keys()
    if as_json:
        print_json([key.to_dict() for key in known])
        return
    for key in known:
        state = f"revoked {key.revoked_at}" if key.revoked_at else f"since {key.created_at}"
        typer.echo(f"{key.id}  {key.scope:<6} {state:<33} {key.label}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `errata keys list` shows it.")],
    url: Url = None,
) -> None:
    """End a key, at once and for good.

    Example: errata keys revoke 3f9a01bc22de
    """
    with server(url) as client:
        key = client.revoke_key(key_id)
    typer.echo(f"{key.id} ({key.label}) is revoked")
