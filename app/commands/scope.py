"""`errata scope`: wordings that an edit must answer too, and questions that it must leave alone."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.commands.client import post

app = typer.Typer(add_completion=False)

Wordings = list[str] | None


@app.command()
def scope(
    edit_id: Annotated[str, typer.Argument(metavar="EDIT_ID", help="A committed edit.")],
    rephrase: Annotated[Wordings, typer.Option(help="A wording to answer. Repeatable.")] = None,
    not_for: Annotated[Wordings, typer.Option(help="A question to leave alone.")] = None,
    remove_rephrase: Annotated[Wordings, typer.Option(help="No longer a rephrase.")] = None,
    remove_not_for: Annotated[Wordings, typer.Option(help="No longer to be left alone.")] = None,
    verify: Annotated[str, typer.Option(help="strict, report or off.")] = "strict",
    reason: Annotated[str | None, typer.Option(help="For people.")] = None,
    url: Annotated[str | None, typer.Option(help="The server. [ERRATA_URL]")] = None,
) -> None:
    """Print the scope that the edit has by now, and on stderr the version."""
    outcome = post(
        url,
        f"/edits/{edit_id}/scope",
        {
            "rephrases": rephrase or [],
            "not_for": not_for or [],
            "remove_rephrases": remove_rephrase or [],
            "remove_not_for": remove_not_for or [],
            "verify": verify,
            "reason": reason,
        },
    )
    _show(outcome["edit"])
    done = "scope changed" if outcome["changed"] else "nothing changed"
    typer.echo(f"version {outcome['version']}: {done}", err=True)


def _show(edit: dict[str, Any]) -> None:
    for name, key in (("for", "rephrases"), ("not for", "not_for")):
        for text in edit[key]:
            typer.echo(f"{name}\t{text}")
