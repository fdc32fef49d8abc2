"""`errata feedback`: what people said of answers, and what came of it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from app.commands.client import server
from app.commands.feedback_import import import_file
from app.commands.tables import AsJson, Url, print_json, print_table

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Reports of answers. Each one is closed by an edit, by a change of scope, or dismissed.",
)

FeedbackId = Annotated[
    str, typer.Argument(metavar="ID", help="As `errata feedback list` shows it.")
]
Reason = Annotated[str | None, typer.Option(help="For people.")]


@app.command()
def report(
    answer_id: Annotated[str, typer.Argument(metavar="ANSWER_ID", help="The `id` of an answer.")],
    correction: Annotated[str | None, typer.Option(help="What the answer should be.")] = None,
    comment: Annotated[str | None, typer.Option(help="In your own words.")] = None,
    right: Annotated[bool, typer.Option("--right/--wrong", help="The answer is right.")] = False,
    url: Url = None,
) -> None:
    """Report an answer; print the report's id.

    Example: errata feedback report 01J9Z3N8Q4T7V5K2M6W0X1Y8B3 --correction Oslo
    """
    verdict: Literal["right", "wrong"] = "right" if right else "wrong"
    with server(url) as client:
        made = client.report(answer_id, verdict, correction=correction, comment=comment)
    typer.echo(made.id)


@app.command("list")
def list_feedback(
    status: Annotated[str, typer.Option(help="open, resolved, dismissed or all.")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, newest first.")] = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List reports, newest first.

    Example: errata feedback list --status all --json
    """
    with server(url) as client:
        listed = [each.to_dict() for each in client.feedback(status=status, limit=limit)]
    if as_json:
        print_json(listed)
        return
    columns = ("id", "status", "verdict", "prompt", "answer", "correction", "comment", "created_by")
    print_table(columns, [[each[name] for name in columns] for each in listed])


@app.command()
def resolve(
    feedback_id: FeedbackId,
    edit: Annotated[str | None, typer.Option(help="The edit that mends it.")] = None,
    scope: Annotated[str | None, typer.Option(help="The edit whose scope mends it.")] = None,
    reason: Reason = None,
    url: Url = None,
) -> None:
    """Close a report by an edit, or by an edit's new scope.

    Example: errata feedback resolve 01J9Z3N8Q4T7V5K2M6W0X1Y8B3 --edit 01J9Z41B9Q0T2V5K2M6W0X1Y8B
    """
    if (edit is None) == (scope is None):
        raise typer.BadParameter("name one: --edit ID or --scope ID")
    _close(url, feedback_id, "edit" if scope is None else "scope", edit or scope, reason)


@app.command()
def dismiss(feedback_id: FeedbackId, reason: Reason = None, url: Url = None) -> None:
    """Close a report without a change.

    Example: errata feedback dismiss 01J9Z3N8Q4T7V5K2M6W0X1Y8B3 --reason "the answer is right"
    """
    _close(url, feedback_id, "dismissal", None, reason)


app.command("import")(import_file)


def _close(
    url: str | None,
    feedback_id: str,
    by: Literal["edit", "scope", "dismissal"],
    edit_id: str | None,
    reason: str | None,
) -> None:
    with server(url) as client:
        closed = client.resolve(feedback_id, by, edit_id=edit_id, reason=reason)
    typer.echo(f"{closed.id} is {closed.status}")
