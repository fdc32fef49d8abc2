"""`errata scope`: wordings that an edit must answer too, and questions that it must leave alone."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.client import server
from app.commands.tables import AsJson, Url, print_json
from app.errata import Edit
from app.errata.models import Verify

app = typer.Typer(add_completion=False)

Wordings = list[str] | None


@app.command()
def scope(
    edit_id: Annotated[str, typer.Argument(metavar="EDIT_ID", help="A committed edit.")],
    rephrase: Annotated[Wordings, typer.Option(help="A wording to answer. Repeatable.")] = None,
    not_for: Annotated[Wordings, typer.Option(help="A question to leave alone.")] = None,
    remove_rephrase: Annotated[Wordings, typer.Option(help="No longer a rephrase.")] = None,
    remove_not_for: Annotated[Wordings, typer.Option(help="No longer to be left alone.")] = None,
    verify: Annotated[Verify, typer.Option(help="strict, report or off.")] = "strict",
    reason: Annotated[str | None, typer.Option(help="For people.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the scope that the edit has by now, and on stderr the version.

    Example: errata scope 01J9Z3N8Q4T7V5K2M6W0X1Y8B3 --rephrase "Capital city?" --not-for "Mayor?"
    """
    with server(url) as client:
        outcome = client.scope(
            edit_id,
            rephrases=rephrase or [],
            not_for=not_for or [],
            remove_rephrases=remove_rephrase or [],
            remove_not_for=remove_not_for or [],
            verify=verify,
            reason=reason,
        )
    if as_json:
        print_json(outcome.to_dict())
        return
    _show(outcome.edit)
    done = "scope changed" if outcome.changed else "nothing changed"
    typer.echo(f"version {outcome.version}: {done}", err=True)


def _show(edit: Edit) -> None:
    for name, wordings in (("for", edit.rephrases), ("not for", edit.not_for)):
        for text in wordings:
            typer.echo(f"{name}\t{text}")
