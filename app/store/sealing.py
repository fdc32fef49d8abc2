"""Sealing what earlier releases wrote: once, when the tables of seals are new.

What is damaged by then stays so: its seal agrees with nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from app.errors import StoreCorrupt
from app.store import owner, seals, tables
from app.store.records import EditRecord
from app.store.seals import BROKEN, Kind, Seal, seal_of, sealed_columns


def seal_all(connection: sa.Connection) -> None:
    """Seal every event with what it brought, and every job.

    Raises `StoreCorrupt` when an edit's row cannot be read.
    """
    brought = _brought(connection)
    for event in _rows(connection, tables.events, tables.events.c.version):
        seals.append(connection, event["version"], dict(event), brought[event["version"]])
    for job in _rows(connection, tables.edit_jobs, tables.edit_jobs.c.id):
        seal = seal_of(tables.edit_jobs, job)
        connection.execute(
            sa.update(tables.edit_jobs).where(tables.edit_jobs.c.id == job["id"]).values(seal=seal)
        )
        owner.count_job(connection, seal)


def _brought(connection: sa.Connection) -> dict[int, list[Seal]]:
    """By version, the seals of the rows that it brought."""
    found: defaultdict[int, list[Seal]] = defaultdict(list)
    versions: dict[str, int] = {}
    pictures: dict[str, int] = {}
    digests = _artifact_digests(connection)
    for row in _rows(connection, tables.edits, tables.edits.c.version):
        version = row["version"]
        versions[row["id"]] = version
        pictures.setdefault(row["image_digest"], version)
        digest = digests.get((row["id"], version), "")
        found[version].append(_edit_seal(connection, row, digest))
    for row in _rows(connection, tables.artifacts, tables.artifacts.c.version):
        found[row["version"]].append(_seal("artifacts", row["edit_id"], row["version"], row))
    for row in _rows(connection, tables.images, tables.images.c.digest):
        if (version := pictures.get(row["digest"], 0)) in found:
            found[version].append(_seal("images", row["digest"], version, row))
    for row in _rows(connection, tables.idempotency, tables.idempotency.c.key):
        if (version := versions.get(row["edit_id"], 0)) in found:
            found[version].append(_seal("idempotency", row["key"], version, row))
    return found


def _edit_seal(connection: sa.Connection, row: Mapping[Any, Any], artifact_digest: str) -> Seal:
    told = connection.scalar(
        sa.select(tables.events.c.record_digest).where(tables.events.c.version == row["version"])
    )
    try:
        record = EditRecord.from_row(row)
        place = seals.place_of(record)
        is_sound = record.digest(artifact_digest) == told
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"edit {row['id']} is damaged: {error}") from error
    seal = seal_of(tables.edits, row) if is_sound else BROKEN
    return Seal("edits", row["id"], row["version"], seal, place)


def _artifact_digests(connection: sa.Connection) -> dict[tuple[str, int], str]:
    columns = tables.artifacts.c
    query = sa.select(columns.edit_id, columns.version, columns.digest)
    return {(edit_id, version): digest for edit_id, version, digest in connection.execute(query)}


def _seal(kind: Kind, key: str, version: int, row: Mapping[Any, Any]) -> Seal:
    return Seal(kind, key, version, seal_of(tables.metadata.tables[kind], row))


def _rows(
    connection: sa.Connection, table: sa.Table, order: sa.Column[Any]
) -> list[Mapping[Any, Any]]:
    query = sa.select(*sealed_columns(table)).order_by(order)
    return list(connection.execute(query).mappings())
