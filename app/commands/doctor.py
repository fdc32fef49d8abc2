"""`errata doctor`: is everything on disk what the event log says it is?

Runs while a server runs, too: it only reads. So it reads what nobody may write, a backup say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import ServiceError, StartupError
from app.images import check_size, decode
from app.settings import Settings
from app.store.database import Database
from app.store.dialects import dialect_of
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from app.store.ledger import Ledger
from editing_core.config import DEFAULT_MODEL
from editing_core.errors import EditingError

if TYPE_CHECKING:
    from app.store.artifacts import Fingerprints

app = typer.Typer(add_completion=False)

_PAGE = 64
"""Pictures that are held at a time."""
_DECODED_AT_ONCE = 2


@app.command()
def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="Data directory. [./data]")] = None,
    database_url: Annotated[str | None, typer.Option(help="Default: in the data dir.")] = None,
    model: Annotated[str | None, typer.Option(help="heraldry, or a folder.")] = None,
) -> None:
    """Check schema, history and every stored byte. Exits with 1 if anything is wrong.

    Edits that other weights than the model's made are listed; they are no problem, but stale.

    Example: errata doctor --database-url sqlite:////backups/errata.db
    """
    try:
        settings = Settings.load(data_dir=data_dir, database_url=database_url, model=model)
        problems = _examine(settings)
    except (StartupError, EditingError) as error:
        problems = [str(error)]
    except ServiceError as error:
        problems = [f"{error} {error.hint}"]
    for problem in problems:
        typer.echo(f"errata: {problem}", err=True)
    raise typer.Exit(1 if problems else 0)


def _examine(settings: Settings) -> list[str]:
    database = Database.open_to_read(
        dialect_of(settings.resolved_database_url, data_dir=settings.data_dir)
    )
    try:
        log, jobs = EditLog(database), JobLog(database)
        checked = log.audit(thorough=True)
        problems = [str(damage) for damage in checked.damage]
        told = {damage.key for damage in checked.damage}
        problems += _artifact_problems(log, checked.ledger, told, _weights(settings))
        problems += _picture_problems(log, checked.ledger)
        pending = jobs.pending()
        for job in pending:
            image = jobs.image(job.id)
            if image is None or not _shows(image.png, job.image_digest):
                problems.append(
                    f"pending edit {job.id}: its picture is missing or damaged; it will fail, so "
                    "send the request again"
                )
        typer.echo(
            f"version {checked.ledger.head}: {len(checked.ledger.ids())} edits, "
            f"{len(checked.ledger.active())} active, {len(pending)} pending, "
            f"{len(problems)} problems"
        )
        return problems
    finally:
        database.close()


def _artifact_problems(
    log: EditLog, ledger: Ledger, told: Container[str], weights: Fingerprints | None
) -> Iterator[str]:
    """Of every edit whose row was not told of by itself."""
    for stored in log.artifacts(ledger.ids()):
        edit_id = stored.record.id
        try:
            reason = _staleness(stored.check(), weights)
        except (ValueError, EditingError) as error:
            if edit_id not in told:
                yield f"edit {edit_id}: {error}; restore a backup, or roll it back"
        else:
            if reason is not None:
                typer.echo(f"edit {edit_id} is stale: {reason}")


def _picture_problems(log: EditLog, ledger: Ledger) -> Iterator[str]:
    """Of every picture, once; by the edits that were made of it."""
    edits: defaultdict[str, list[str]] = defaultdict(list)
    for edit_id in ledger.ids():
        edits[ledger[edit_id].slot[0]].append(edit_id)
    digests = list(edits)
    with ThreadPoolExecutor(_DECODED_AT_ONCE) as pool:
        for start in range(0, len(digests), _PAGE):
            page = digests[start : start + _PAGE]
            pngs = log.images(page)
            shown = pool.map(lambda digest, of=pngs: _is_shown(of.get(digest), digest), page)
            for digest, is_shown in zip(page, shown, strict=True):
                if not is_shown:
                    yield (
                        f"edit {', '.join(edits[digest])}: its picture is missing or damaged "
                        f"({digest}); it answers, but cannot be made anew: restore a backup"
                    )


def _is_shown(png: bytes | None, digest: str) -> bool:
    return png is not None and _shows(png, digest)


def _shows(png: bytes, digest: str) -> bool:
    """Whether the bytes are a picture of these pixels."""
    try:
        check_size(png)
        return decode(png).digest == digest
    except ServiceError:
        return False


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
    from editing_core.experts.codec import read_head

    artifact = read_head(data)
    return None if weights is None else weights.mismatch(artifact)
