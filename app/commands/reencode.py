"""`errata reencode`: stale edits made anew by the weights that are there now."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.edits.edit import Verify
from app.edits.reencode import Reencoder, StaleEdit
from app.errors import ServiceError, StartupError
from app.history import Caller
from app.runtime import Runtime
from app.settings import Settings
from app.store.dialects import Dialect, dialect_of
from app.ulid import new_ulid
from editing_core.errors import EditingError, RequestError

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(add_completion=False)

_WIDTH_OF_A_FILE = 160


@app.command()
def reencode(
    model: Annotated[str | None, typer.Option(help="heraldry, a hub id, or a folder.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory. [./data]")] = None,
    editor: Annotated[
        str | None, typer.Option(help="For edits whose own is not loaded. [liveedit]")
    ] = None,
    edit: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Only this one. Repeatable.")
    ] = None,
    verify: Annotated[
        Verify,
        typer.Option(help="strict: what fails stays stale; report: it is kept; off: no trial."),
    ] = "strict",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is stale; stop.")] = False,
) -> None:
    """Make every stale edit anew from its stored request. Stop the server first.

    In the order of versions, each tried beside those before it and committed by itself: kill it
    and run it again. Exits with 1 if any edit stays stale. Settings not named here are read from
    ERRATA_... and errata.toml, as `errata serve` reads them.

    Example: errata reencode --model checkpoints/new --dry-run
    """
    try:
        settings = Settings.load(model=model, data_dir=data_dir, editor=editor)
        _require_database(dialect_of(settings.resolved_database_url, data_dir=settings.data_dir))
        runtime = Runtime.open(settings)
        failed = asyncio.run(_reencode(runtime, edit or [], verify, dry_run=dry_run))
    except (StartupError, ServiceError, EditingError, OSError, LookupError, ValueError) as error:
        hint = getattr(error, "hint", "")
        typer.echo(f"errata: {error}{' ' if hint else ''}{hint}", err=True)
        raise typer.Exit(1) from error
    raise typer.Exit(1 if failed else 0)


def _require_database(where: Dialect) -> None:
    """What a server would begin with, this command would only be mistaken about."""
    if not where.exists():
        raise StartupError(f"there is no database at {where.name}; check --data-dir")


async def _reencode(runtime: Runtime, only: Sequence[str], verify: Verify, *, dry_run: bool) -> int:
    """How many of the stale edits are stale still, having been tried."""
    try:
        await runtime.load(resumes_edits=False)
        service = runtime.service
        reencoder = Reencoder(
            engine=service.engine,
            maker=service.maker,
            history=service.history,
            default_editor=service.default_editor,
        )
        stale = await reencoder.stale(only)
        _show(stale, only, service.history.head)
        if dry_run or not stale:
            return 0
        failed = await _all_of(stale, reencoder, verify)
        for found, why in failed:
            typer.echo(f"errata: edit {found.edit.id} stays stale: {why}", err=True)
        done = len(stale) - len(failed)
        typer.echo(f"made {done} of {len(stale)} anew; version {service.history.head}")
        return len(failed)
    finally:
        await runtime.close()


async def _all_of(
    stale: Sequence[StaleEdit], reencoder: Reencoder, verify: Verify
) -> list[tuple[StaleEdit, str]]:
    """Make them anew, one after another; those that failed, with the reason."""
    caller = Caller(request_id=new_ulid())
    failed: list[tuple[StaleEdit, str]] = []
    for found in _with_bar(stale):
        try:
            await reencoder.reencode(found, verify=verify, caller=caller)
        except (ServiceError, RequestError) as error:
            failed.append((found, _reason(error)))
    return failed


def _reason(error: ServiceError | RequestError) -> str:
    details = error.details if isinstance(error, ServiceError) else {}
    told = [f"{error.message} ({error.code})"]
    if details.get("before") is not None:
        told.append(f"before: {details['before']!r}, after: {details['after']!r}")
    if details.get("conflicts_with"):
        told.append(f"conflicts with {', '.join(details['conflicts_with'])}")
    return "; ".join(told)


def _show(stale: Sequence[StaleEdit], only: Sequence[str], head: int) -> None:
    from rich.console import Console

    typer.echo(f"version {head}: {len(stale)} stale edits")
    known = {found.edit.id for found in stale}
    for edit_id in only:
        if edit_id not in known:
            typer.echo(f"edit {edit_id} is not stale")
    if stale:
        Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(_table(stale))


def _with_bar(stale: Sequence[StaleEdit]) -> Iterator[StaleEdit]:
    """The edits, with a bar on stderr while they are gone through."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("re-encoding", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        yield from shown.track(stale)


def _table(stale: Sequence[StaleEdit]) -> Table:
    """What is stale, why, and what makes it anew."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("edit", no_wrap=True)
    for name in ("version", "status", "why", "made anew by", "prompt", "target"):
        table.add_column(name, overflow="fold")
    for found in stale:
        edit = found.edit
        cells = (
            edit.id,
            str(edit.version),
            edit.status,
            found.why,
            found.editor if found.editor == edit.editor else f"{found.editor} instead",
            edit.wanted.prompt,
            edit.wanted.target,
        )
        table.add_row(*map(Text, cells))  # as they are: brackets mean nothing
    return table
