"""`errata keys`: who may use a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from app.access.scopes import KeyScope
from app.commands.client import get, post

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="API keys of a running server. A key may infer (ask), edit (ask and correct), or admin "
    "(all). ERRATA_API_KEY is the key that these commands use themselves; the first key of a "
    "server on this machine needs none.",
)

Url = Annotated[str | None, typer.Option(help="The server. [ERRATA_URL or 127.0.0.1:8000]")]


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
    body = {
        "label": label,
        "scope": scope,
        "requests_per_minute": requests_per_minute,
        "edits_per_day": edits_per_day,
    }
    made = post(url, "/admin/keys", {k: v for k, v in body.items() if v is not None})
    typer.echo(
        f"errata: the key {made['id']} ({made['label']}, {made['scope']}); keep it:", err=True
    )
    typer.echo(made["token"])


@app.command("list")
def list_keys(url: Url = None) -> None:
    """Print all keys: id, scope, label, when it was made or revoked."""
    for key in get(url, "/admin/keys")["data"]:
        state = (
            f"revoked {key['revoked_at']}" if key["revoked_at"] else f"since {key['created_at']}"
        )
        typer.echo(f"{key['id']}  {key['scope']:<6} {state:<33} {key['label']}")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `errata keys list` shows it.")],
    url: Url = None,
) -> None:
    """End a key, at once and for good."""
    key = post(url, f"/admin/keys/{key_id}/revoke", {})
    typer.echo(f"{key['id']} ({key['label']}) is revoked")
