"""`errata doctor`: is everything on disk what the event log says it is?

Runs while a server runs, too: it only reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.errors import ServiceError, StartupError
from app.images import decode_png
from app.settings import Settings
from app.store.database import Database
from app.store.dialects.sqlite import database_file
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from editing_core.identity import image_digest

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Data directory. [./data]")] = None,
) -> None:
    """Check schema, history and every stored byte. Exits with 1 if anything is wrong."""
    try:
        settings = Settings.load(data_dir=data_dir)
        problems = _examine(settings.resolved_database_url)
    except (StartupError, ServiceError) as error:
        problems = [str(error)]
    for problem in problems:
        typer.echo(f"errata: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def _examine(url: str) -> list[str]:
    file = database_file(url)
    if file is not None and not file.is_file():
        return [f"there is no database at {file}"]
    database = Database.open(url, migrate=False)
    try:
        log = EditLog(database)
        ledger, _ = log.fold()
        problems: list[str] = []
        for stored in log.artifacts(ledger.ids()):
            try:
                stored.check()
            except ValueError as error:
                problems.append(f"edit {stored.record.id}: {error}")
            png = log.image(stored.record.image_digest)
            if png is None or image_digest(decode_png(png)) != stored.record.image_digest:
                problems.append(f"edit {stored.record.id}: its picture is missing or damaged")
        jobs = JobLog(database)
        pending = jobs.pending()
        for job in pending:
            image = jobs.image(job.id)
            if image is None or image_digest(decode_png(image.png)) != job.image_digest:
                problems.append(f"pending edit {job.id}: its picture is missing or damaged")
        typer.echo(
            f"version {ledger.head}: {len(ledger.ids())} edits, {len(ledger.active())} active, "
            f"{len(pending)} pending, {len(problems)} problems"
        )
        return problems
    finally:
        database.close()
