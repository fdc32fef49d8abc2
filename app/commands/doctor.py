"""`errata doctor`: is everything on disk what the event log says it is?

Runs while a server runs, too: it only reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import ServiceError, StartupError
from app.images import decode_png
from app.settings import Settings
from app.store.database import Database
from app.store.dialects.sqlite import database_file
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from editing_core.config import DEFAULT_MODEL
from editing_core.errors import EditingError
from editing_core.identity import image_digest

if TYPE_CHECKING:
    from app.store.artifacts import Fingerprints

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Data directory. [./data]")] = None,
    model: Annotated[str | None, typer.Option(help="heraldry, or a folder.")] = None,
) -> None:
    """Check schema, history and every stored byte. Exits with 1 if anything is wrong.

    Edits that other weights than the model's made are listed; they are no problem, but stale.
    """
    try:
        settings = Settings.load(data_dir=data_dir, model=model)
        problems = _examine(settings)
    except (StartupError, ServiceError, EditingError) as error:
        problems = [str(error)]
    for problem in problems:
        typer.echo(f"errata: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def _examine(settings: Settings) -> list[str]:
    url = settings.resolved_database_url
    file = database_file(url)
    if not file.is_file():
        return [f"there is no database at {file}"]
    weights = _weights(settings)
    database = Database.open(url, migrate=False)
    try:
        log = EditLog(database)
        ledger, _ = log.fold()
        problems: list[str] = []
        for stored in log.artifacts(ledger.ids()):
            try:
                reason = _staleness(stored.check(), weights)
            except (ValueError, EditingError) as error:
                problems.append(f"edit {stored.record.id}: {error}")
            else:
                if reason is not None:
                    typer.echo(f"edit {stored.record.id} is stale: {reason}")
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


def _weights(settings: Settings) -> Fingerprints | None:
    """By the checkpoint's files; None where they cannot be read, or would have to be fetched."""
    from app.store.artifacts import Fingerprints
    from editing_core.backbones.loading import find_checkpoint
    from editing_core.parts import part_fingerprints

    model = settings.model
    if model != DEFAULT_MODEL and not Path(model).is_dir():
        typer.echo(f"edits are not compared with weights: {model} is no folder")
        return None
    try:
        parts = part_fingerprints(
            find_checkpoint(model),
            parts=settings.parts_dir,
            clip=settings.clip,
            quantization=settings.quantization,
        )
    except EditingError as error:
        typer.echo(f"edits are not compared with weights: {error}")
        return None
    return Fingerprints(parts.backbone, parts.router, parts.editors)


def _staleness(data: bytes, weights: Fingerprints | None) -> str | None:
    """Why the edit of these bytes is stale; None if it is not, or nobody can tell."""
    from editing_core.experts.codec import decode_artifact

    artifact = decode_artifact(data)
    return None if weights is None else weights.mismatch(artifact)
