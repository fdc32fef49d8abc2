"""Edits as they stand: their rows with the newest event that made them anew, their newest bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.store import tables
from app.store.records import EditRecord, Reencoding, digest_of, reencoding_of


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as read. Nothing in it is to be used before `check` passed.

    `record` is the row as it was written; `first_digest` is that of the artifact it came with,
    which `record_digest` binds it to.
    """

    record: EditRecord
    data: bytes | None
    digest: str | None
    first_digest: str | None
    record_digest: str | None
    reencoding: Reencoding | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> StoredArtifact:
        return cls(
            EditRecord.from_row(row),
            data=row["data"],
            digest=row["artifact_digest"],
            first_digest=row["first_digest"],
            record_digest=row["record_digest"],
            reencoding=reencoding_of(row),
        )

    def check(self) -> bytes:
        """The bytes, if they and the edit's row are what the event log says.

        Raises `ValueError` naming what is not.
        """
        if self.data is None or self.digest is None or self.first_digest is None:
            raise ValueError("its artifact is missing")
        if digest_of(self.data) != self.digest:
            raise ValueError("its artifact's bytes do not match their digest")
        if self.record.digest(self.first_digest) != self.record_digest:
            raise ValueError("its row does not match the digest in the event log")
        if self.reencoding is not None and self.reencoding.artifact_digest != self.digest:
            raise ValueError("its newest artifact does not match the digest in the event log")
        return self.data


_made_anew = tables.events.alias("made_anew")
_later = tables.events.alias("later")
RECORDS = sa.select(tables.edits, _made_anew.c.reencoded_edit, _made_anew.c.reencoding).select_from(
    tables.edits.outerjoin(
        _made_anew,
        _made_anew.c.version
        == sa.select(sa.func.max(_later.c.version))
        .where(_later.c.reencoded_edit == tables.edits.c.id)
        .correlate(tables.edits)
        .scalar_subquery(),
    )
)
"""Every edit's row, with the newest event that made it anew, if any did."""

_first = tables.artifacts.alias("first")
ARTIFACTS = (
    RECORDS.add_columns(
        tables.artifacts.c.data,
        tables.artifacts.c.digest.label("artifact_digest"),
        _first.c.digest.label("first_digest"),
        tables.events.c.record_digest,
    )
    .join(tables.events, tables.events.c.version == tables.edits.c.version)
    .outerjoin(
        _first,
        (_first.c.edit_id == tables.edits.c.id) & (_first.c.version == tables.edits.c.version),
    )
    .outerjoin(
        tables.artifacts,
        (tables.artifacts.c.edit_id == tables.edits.c.id)
        & (
            tables.artifacts.c.version
            == sa.func.coalesce(_made_anew.c.version, tables.edits.c.version)
        ),
    )
    .where(tables.edits.c.id.in_(sa.bindparam("ids", expanding=True)))
)


def as_it_stands(row: Mapping[Any, Any]) -> EditRecord:
    record, made_anew = EditRecord.from_row(row), reencoding_of(row)
    return record if made_anew is None else record.made_anew(made_anew)
