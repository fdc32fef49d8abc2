"""Edits as they stand: their rows with the newest events that changed them, their newest bytes.

Two kinds of events do: one that made the edit anew, and one that changed its scope. "As it stood at
a version" takes the newest change of scope up to it, but the newest making anew there is: artifacts
of other weights are of no use to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.store import tables
from app.store.records import EditRecord, Reencoding, Rescoping, digest_of, reencoding_of, scopes_of

NOW = 2**63 - 1
"""For the parameter `at` of both queries: later than any version."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as read. Nothing in it is to be used before `check` passed.

    `record` is the row as it was written, `standing` with what changed since laid over it;
    `first_digest` is that of the artifact it came with, which `record_digest` binds it to.
    """

    record: EditRecord
    standing: EditRecord
    data: bytes | None
    digest: str | None
    first_digest: str | None
    record_digest: str | None
    told_digest: str | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> StoredArtifact:
        changes = _changes(row)
        return cls(
            EditRecord.from_row(row),
            as_it_stands(row),
            data=row["data"],
            digest=row["artifact_digest"],
            first_digest=row["first_digest"],
            record_digest=row["record_digest"],
            told_digest=changes[-1].artifact_digest if changes else row["first_digest"],
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
        if self.told_digest != self.digest:
            raise ValueError("its newest artifact does not match the digest in the event log")
        return self.data


_made_anew = tables.events.alias("made_anew")
_later = tables.events.alias("later")
_rescoped = tables.events.alias("rescoped")
RECORDS = sa.select(
    tables.edits,
    _made_anew.c.reencoded_edit,
    _made_anew.c.reencoding,
    _made_anew.c.version.label("made_anew_version"),
    _rescoped.c.scopes,
    _rescoped.c.version.label("rescoped_version"),
).select_from(
    tables.edits.outerjoin(
        _made_anew,
        _made_anew.c.version
        == sa.select(sa.func.max(_later.c.version))
        .where(_later.c.reencoded_edit == tables.edits.c.id)
        .correlate(tables.edits)
        .scalar_subquery(),
    ).outerjoin(
        _rescoped,
        _rescoped.c.version
        == sa.select(sa.func.max(tables.scoped.c.version))
        .where(
            tables.scoped.c.edit_id == tables.edits.c.id,
            tables.scoped.c.version <= sa.bindparam("at", NOW, type_=sa.Integer),
        )
        .correlate(tables.edits)
        .scalar_subquery(),
    )
)
"""Every edit's row, with the newest events that changed it, if any did; of scope, up to `at`."""

_first = tables.artifacts.alias("first")
_made = sa.func.coalesce(_made_anew.c.version, tables.edits.c.version)
_since = sa.func.coalesce(_rescoped.c.version, 0)
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
        & (tables.artifacts.c.version == sa.case((_since > _made, _since), else_=_made)),
    )
    .where(tables.edits.c.id.in_(sa.bindparam("ids", expanding=True)))
)


def as_it_stands(row: Mapping[Any, Any]) -> EditRecord:
    record = EditRecord.from_row(row)
    for change in _changes(row):
        if isinstance(change, Reencoding):
            record = record.made_anew(change)
        else:
            record = record.rescoped(change)
    return record


def _changes(row: Mapping[Any, Any]) -> list[Reencoding | Rescoping]:
    """What changed the edit of this row, oldest first."""
    found: list[tuple[int, Reencoding | Rescoping]] = []
    if (made_anew := reencoding_of(row)) is not None:
        found.append((row["made_anew_version"], made_anew))
    for rescoping in scopes_of(row["scopes"]):
        if rescoping.edit_id == row["id"]:
            found.append((row["rescoped_version"], rescoping))
    return [change for _, change in sorted(found, key=lambda pair: pair[0])]
