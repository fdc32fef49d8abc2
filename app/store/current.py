"""Edits as they stand: their rows with the newest events that changed them, their newest bytes.

Two kinds of events do: one that made the edit anew, and one that changed its scope. "As it stood at
a version" takes the newest change of scope up to it, but the newest making anew there is: artifacts
of other weights are of no use to anybody.

Which edits there are is told by the seals. A row that does not agree with its seal, or is gone, is
replaced by the little that was sealed with it; a row without a seal is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.store import tables
from app.store.records import EditRecord, Reencoding, Rescoping, digest_of, reencoding_of, scopes_of
from app.store.seals import placed, seal_of

NOW = 2**31 - 1
"""For the parameter `at` of both queries: later than any version."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact as read. Nothing in it is to be used before `check` passed.

    `record` is the row as it was written, `standing` with what changed since laid over it;
    `version` brought it; `first_digest` is that of the artifact it came with, which `record_digest`
    binds it to.
    """

    record: EditRecord
    standing: EditRecord
    is_sound: bool
    version: int | None
    data: bytes | None
    digest: str | None
    first_digest: str | None
    record_digest: str | None
    told_digest: str | None

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> StoredArtifact:
        changes, is_sound = _changes(row), _is_sound(row)
        written = _as_it_was_written(row, is_sound)
        return cls(
            written,
            _changed(written, changes),
            is_sound=is_sound,
            version=row["artifact_version"],
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
        if not self.is_sound:
            raise ValueError("its row was changed or removed")
        if not isinstance(self.data, bytes) or self.digest is None or self.first_digest is None:
            raise ValueError("its artifact is missing")
        if digest_of(self.data) != self.digest:
            raise ValueError("its artifact's bytes do not match their digest")
        if self.record.digest(self.first_digest) != self.record_digest:
            raise ValueError("its row does not match the digest in the event log")
        if self.told_digest != self.digest:
            raise ValueError("its newest artifact does not match the digest in the event log")
        return self.data


EDIT_ID: sa.Column[Any] = tables.seals.c.key
"""Of the queries below, the column that holds the edit's id."""
_at = sa.bindparam("at", NOW, type_=sa.Integer)
_created = tables.events.alias("created")
_made_anew = tables.events.alias("made_anew")
_later = tables.events.alias("later")
_rescoped = tables.events.alias("rescoped")
_scoping = tables.events.alias("scoping")
_brought = tables.seals.alias("brought")
_last_made_anew = (
    sa.select(sa.func.max(_later.c.version))
    .where(_later.c.reencoded_edit == EDIT_ID)
    .correlate(tables.seals)
    .scalar_subquery()
)
_last_rescoped = (
    sa.select(sa.func.max(_scoping.c.version))
    .join_from(_brought, _scoping, _scoping.c.version == _brought.c.version)
    .where(
        _brought.c.kind == "artifacts",
        _brought.c.key == EDIT_ID,
        _brought.c.version <= _at,
        _scoping.c.scopes.is_not(None),
    )
    .correlate(tables.seals)
    .scalar_subquery()
)
RECORDS = (
    sa.select(
        EDIT_ID.label("edit_id"),
        tables.seals.c.version.label("sealed_version"),
        tables.seals.c.seal,
        tables.seals.c.place,
        tables.edits,
        _created.c.at,
        _created.c.actor,
        _made_anew.c.reencoded_edit,
        _made_anew.c.reencoding,
        _made_anew.c.version.label("made_anew_version"),
        _rescoped.c.scopes,
        _rescoped.c.version.label("rescoped_version"),
    )
    .select_from(
        tables.seals.outerjoin(tables.edits, tables.edits.c.id == EDIT_ID)
        .outerjoin(_created, _created.c.version == tables.seals.c.version)
        .outerjoin(_made_anew, _made_anew.c.version == _last_made_anew)
        .outerjoin(_rescoped, _rescoped.c.version == _last_rescoped)
    )
    .where(tables.seals.c.kind == "edits")
)
"""Every edit's row and seal, with the newest events that changed it; of scope, up to `at`."""

_first = tables.artifacts.alias("first")
_made = sa.func.coalesce(_made_anew.c.version, tables.seals.c.version)
_since = sa.func.coalesce(_rescoped.c.version, 0)
ARTIFACTS = (
    RECORDS.add_columns(
        tables.artifacts.c.version.label("artifact_version"),
        tables.artifacts.c.data,
        tables.artifacts.c.digest.label("artifact_digest"),
        _first.c.digest.label("first_digest"),
        _created.c.record_digest,
    )
    .outerjoin(_first, (_first.c.edit_id == EDIT_ID) & (_first.c.version == tables.seals.c.version))
    .outerjoin(
        tables.artifacts,
        (tables.artifacts.c.edit_id == EDIT_ID)
        & (tables.artifacts.c.version == sa.case((_since > _made, _since), else_=_made)),
    )
    .where(EDIT_ID.in_(sa.bindparam("ids", expanding=True)))
)


def as_it_was_written(row: Mapping[Any, Any]) -> EditRecord:
    """The edit of this row; what was sealed of it where the row is not to be believed."""
    return _as_it_was_written(row, _is_sound(row))


def _as_it_was_written(row: Mapping[Any, Any], is_sound: bool) -> EditRecord:
    if is_sound:
        return EditRecord.from_row(row)
    place = placed(row["edit_id"], row["sealed_version"], row["place"])
    image, prompt = place.slot
    return EditRecord(
        id=place.id,
        version=place.version,
        editor="",
        prompt=prompt,
        target="",
        image_digest=image,
        before=None,
        after=None,
        verified=None,
        verified_version=None,
        rephrases=place.scope.rephrases,
        not_for=place.scope.not_for,
        supersedes=place.supersedes,
        created_at=row["at"],
        created_by=row["actor"],
    )


def as_it_stands(row: Mapping[Any, Any]) -> EditRecord:
    return _changed(as_it_was_written(row), _changes(row))


def _changed(record: EditRecord, changes: Sequence[Reencoding | Rescoping]) -> EditRecord:
    for change in changes:
        if isinstance(change, Reencoding):
            record = record.made_anew(change)
        else:
            record = record.rescoped(change)
    return record


def _is_sound(row: Mapping[Any, Any]) -> bool:
    return row["id"] is not None and seal_of(tables.edits, row) == row["seal"]


def _changes(row: Mapping[Any, Any]) -> list[Reencoding | Rescoping]:
    """What changed the edit of this row, oldest first."""
    found: list[tuple[int, Reencoding | Rescoping]] = []
    if (made_anew := reencoding_of(row)) is not None:
        found.append((row["made_anew_version"], made_anew))
    for rescoping in scopes_of(row["scopes"]):
        if rescoping.edit_id == row["edit_id"]:
            found.append((row["rescoped_version"], rescoping))
    return [change for _, change in sorted(found, key=lambda pair: pair[0])]
