"""What one version brings, written in its transaction, with a seal for each row.

A row that no event brought may be in the way: somebody else wrote it. It makes room.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import sqlalchemy as sa

from app.store import owner, tables
from app.store.commits import Commit, Created, Reencoded, Restored, ScopeChanged, Switched
from app.store.records import Event, digest_of
from app.store.seals import Seal, place_of, seal_of, sealed_columns

logger = logging.getLogger(__name__)

# Built once: building a statement takes longer than running it.
_PUT = {
    table.name: (
        sa.delete(table).where(*(c == sa.bindparam(f"_{c.name}") for c in table.primary_key)),
        sa.insert(table),
    )
    for table in (tables.artifacts, tables.images, tables.idempotency)
}
_INSERT_EDIT = sa.insert(tables.edits)
_SET_TIMINGS = (
    sa.update(tables.edits)
    .where(tables.edits.c.id == sa.bindparam("_id"))
    .values(timings_ms=sa.bindparam("timings_ms"))
)
_IS_KNOWN = sa.select(tables.seals.c.version).where(
    tables.seals.c.kind == "images", tables.seals.c.key == sa.bindparam("digest")
)
_JOB_SEAL = sa.select(tables.edit_jobs.c.seal).where(tables.edit_jobs.c.id == sa.bindparam("id"))
_IN_THE_WAY = sa.select(*sealed_columns(tables.edits)).where(
    tables.edits.c.version == sa.bindparam("version")
)


def write(connection: sa.Connection, commit: Commit, event: Event) -> list[Seal]:
    """Every row of `commit` but its event's; their seals."""
    version = event.version
    match commit:
        case Created():
            return _write_edit(connection, commit)
        case Reencoded():
            return [_artifact(connection, commit.reencoding.edit_id, version, commit.artifact)]
        case Restored() | ScopeChanged():
            return [
                _artifact(connection, each.rescoping.edit_id, version, each.artifact)
                for each in commit.rescoped
            ]
        case Switched():
            return []


def _write_edit(connection: sa.Connection, new: Created) -> list[Seal]:
    record = new.record
    _make_room(connection, record.version)
    brought = _image(connection, new)
    connection.execute(_INSERT_EDIT, record.row())
    brought.append(_artifact(connection, record.id, record.version, new.artifact))
    _end_job(connection, record.id)
    if new.key is not None:
        row = {
            "api_key": new.key.key.api_key,
            "key": new.key.key.name,
            "request_digest": new.key.request_digest,
            "status": new.key.status,
            "body": "",
            "edit_id": record.id,
            "created_at": record.created_at,
        }
        _put(connection, tables.idempotency, row)
        seal = seal_of(tables.idempotency, row)
        brought.append(Seal("idempotency", new.key.key.text, record.version, seal))
    timings = json.dumps(dict(new.timings_ms()))
    connection.execute(_SET_TIMINGS, {"_id": record.id, "timings_ms": timings})
    seal = seal_of(tables.edits, record.row() | {"timings_ms": timings})
    return [*brought, Seal("edits", record.id, record.version, seal, place_of(record))]


def _image(connection: sa.Connection, new: Created) -> list[Seal]:
    """The picture, unless an earlier event brought it."""
    image = new.image
    if connection.scalar(_IS_KNOWN, {"digest": image.digest}) is not None:
        return []
    row = {
        "digest": image.digest,
        "png": image.png,
        "png_digest": digest_of(image.png),
        "width": image.width,
        "height": image.height,
    }
    _put(connection, tables.images, row)
    return [Seal("images", image.digest, new.record.version, seal_of(tables.images, row))]


def _artifact(connection: sa.Connection, edit_id: str, version: int, data: bytes) -> Seal:
    row = {"edit_id": edit_id, "version": version, "data": data, "digest": digest_of(data)}
    _put(connection, tables.artifacts, row)
    return Seal("artifacts", edit_id, version, seal_of(tables.artifacts, row))


def _end_job(connection: sa.Connection, edit_id: str) -> None:
    """What was promised is there."""
    seal = connection.scalar(_JOB_SEAL, {"id": edit_id})
    if seal is not None:
        owner.count_job(connection, seal)
        connection.execute(sa.delete(tables.edit_jobs).where(tables.edit_jobs.c.id == edit_id))


def _put(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    """Insert, in the place of a row that no event brought."""
    delete, insert = _PUT[table.name]
    connection.execute(delete, {f"_{c.name}": row[c.name] for c in table.primary_key})
    connection.execute(insert, row)


def _make_room(connection: sa.Connection, version: int) -> None:
    """Whatever has this version already: an edit gets back its own, a stranger is set aside."""
    edits, seals = tables.edits.c, tables.seals.c
    for row in connection.execute(_IN_THE_WAY, {"version": version}).mappings().all():
        edit_id = row["id"]
        own = connection.scalar(
            sa.select(seals.version).where(seals.kind == "edits", seals.key == edit_id)
        )
        this = edits.id == edit_id
        if own is not None:
            logger.error("the row of edit %s had version %d, which it never was", edit_id, version)
            connection.execute(sa.update(tables.edits).where(this).values(version=own))
            continue
        logger.error("a row that no event brought, edit %s, is set aside", edit_id)
        connection.execute(
            sa.insert(tables.set_aside).values(
                kind="edits", row=json.dumps(dict(row), default=bytes.hex), at_version=version
            )
        )
        connection.execute(sa.delete(tables.artifacts).where(tables.artifacts.c.edit_id == edit_id))
        connection.execute(sa.delete(tables.edits).where(this))
