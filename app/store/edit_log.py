"""The append-only log of edits and what hangs on it: one transaction per version.

All functions block and belong on a worker thread. There is one writer (`app/service.py` holds
the lock); readers are free.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import sqlalchemy as sa

from app.errors import StoreDamaged
from app.store import seals, tables
from app.store.audit import Audit, Damage, audit, job_damage
from app.store.commits import Commit, Stamp, event_of
from app.store.current import (
    ARTIFACTS,
    EDIT_ID,
    NOW,
    RECORDS,
    StoredArtifact,
    as_it_stands,
    as_it_was_written,
)
from app.store.database import Database
from app.store.ledger import Change
from app.store.records import (
    EditRecord,
    Event,
    IdempotencyKey,
    ListedEvent,
    digest_of,
    num_changes_of,
)
from app.store.writing import write

_PAGE = 500
_SHOWN_CHANGES = 100
"""Of each event in a list. The others have a page of their own."""
_INSERT_EVENT = sa.insert(tables.events)
_INSERT_CHANGES = sa.insert(tables.changes)
_MOVE_HEAD = (
    sa.update(tables.head)
    .where(tables.head.c.version == sa.bindparam("to") - 1)
    .values(version=sa.bindparam("to"))
)


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """What an idempotency key stands for. Status 202: the edit, as it stands by then.

    `body` is what earlier releases answered, in full. Where it is None, the edit's row tells.
    """

    request_digest: str
    status: int
    body: str | None
    edit_id: str


class EditLog:
    """Reads and appends. `head` and the ledger are the caller's; the database checks both."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, commit: Commit, stamp: Stamp) -> Event:
        """Write one version, with everything that belongs to it, or nothing at all.

        Raises what `Database.write` raises.
        """
        return self.append_all([commit], stamp)

    def append_all(self, commits: Sequence[Commit], stamp: Stamp) -> Event:
        """The same for one version after another, all of them or none; `stamp` is the first one's.

        Returns the last event.
        """
        with self._database.write() as connection:
            for commit in commits:
                event = event_of(commit, stamp)
                seal = self._append(connection, commit, event)
                stamp = replace(stamp, version=stamp.version + 1, previous_digest=event.digest)
        self._database.committed(event.version, seal)
        return event

    def _append(self, connection: sa.Connection, commit: Commit, event: Event) -> str:
        """The new event's seal."""
        row = event.row()
        moved = connection.execute(_MOVE_HEAD, {"to": event.version})
        if moved.rowcount != 1:
            raise StoreDamaged(f"The head of the database is not {event.version - 1}.")
        connection.execute(_INSERT_EVENT, row)
        if rows := event.change_rows():
            connection.execute(_INSERT_CHANGES, rows)
        return seals.append(connection, event.version, row, write(connection, commit, event))

    def audit(self, *, thorough: bool = False) -> Audit:
        """The ledger and all that is wrong: see `app/store/audit.py`."""
        with self._database.read() as connection:
            return audit(connection, thorough=thorough)

    def audit_jobs(self) -> list[Damage]:
        """What is wrong with edits that are not committed."""
        with self._database.read() as connection:
            return job_damage(connection)

    def newest(self) -> tuple[int, str | None, str | None]:
        """The head, with digest and seal of its event, as they are told."""
        with self._database.read() as connection:
            head = connection.scalar(sa.select(tables.head.c.version))
            digest = connection.scalar(
                sa.select(tables.events.c.digest).where(tables.events.c.version == head)
            )
            return int(head or 0), digest, seals.event_seal(connection, int(head or 0))

    def confirm(self, checked: Audit) -> None:
        """What was found sound is where the database stands."""
        self._database.committed(checked.ledger.head, checked.seal)

    def record(self, edit_id: str) -> EditRecord | None:
        """The edit as it stands, made anew or not."""
        row = self._row(edit_id)
        return as_it_stands(row) if row else None

    def first_record(self, edit_id: str) -> EditRecord | None:
        """The edit as it was committed."""
        row = self._row(edit_id)
        return as_it_was_written(row) if row else None

    def _row(self, edit_id: str) -> Mapping[Any, Any] | None:
        with self._database.read() as connection:
            return (
                connection.execute(RECORDS.where(sa.literal(edit_id) == EDIT_ID))
                .mappings()
                .one_or_none()
            )

    def records(self, edit_ids: Sequence[str]) -> list[EditRecord]:
        """Edits as they stand, in the order asked for; unknown ones are left out."""
        with self._database.read() as connection:
            rows = connection.execute(RECORDS.where(EDIT_ID.in_(edit_ids))).mappings()
            found = {row["edit_id"]: as_it_stands(row) for row in rows}
        return [found[edit_id] for edit_id in edit_ids if edit_id in found]

    def search(
        self, *, below: str | None, text: str | None, tag: str | None, limit: int
    ) -> list[str]:
        """Up to `limit` ids of edits that may match, newest first, older than the id `below`.

        None that matches is left out. The database looks at every row of edits, and knows letters
        of ASCII only: `matches` has the last word.
        """
        query = (
            sa.select(EDIT_ID)
            .select_from(tables.seals.outerjoin(tables.edits, tables.edits.c.id == EDIT_ID))
            .where(tables.seals.c.kind == "edits", may_match(text, tag))
            .order_by(EDIT_ID.desc())
            .limit(limit)
        )
        if below is not None:
            query = query.where(below > EDIT_ID)
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def events(self, *, after: int = 0, limit: int) -> list[ListedEvent]:
        """Events newer than version `after`, oldest first."""
        query = sa.select(tables.events).where(tables.events.c.version > after).limit(limit)
        return self._listed(query, tables.changes.c.place < _SHOWN_CHANGES)

    def events_of(self, edit_id: str) -> list[ListedEvent]:
        """Events that changed an edit, oldest first; each with its change of that edit."""
        changes = tables.changes.c
        touched = sa.select(changes.version).where(changes.edit_id == edit_id)
        return self._listed(
            sa.select(tables.events).where(tables.events.c.version.in_(touched)),
            (changes.place < _SHOWN_CHANGES) | (changes.edit_id == edit_id),
        )

    def _listed(self, query: sa.Select[Any], shown: sa.ColumnElement[bool]) -> list[ListedEvent]:
        with self._database.read() as connection:
            query = query.order_by(tables.events.c.version)
            rows = connection.execute(query).mappings().all()
            changes = changes_of(connection, [row["version"] for row in rows], shown)
        return [
            ListedEvent(
                Event.from_row(row, changes.get(row["version"], [])),
                num_changes_of(row),
                row["digest"],
            )
            for row in rows
        ]

    def changes(self, version: int, *, after: int, limit: int) -> list[Change]:
        """What an event changed, in its order, without the first `after`."""
        place = tables.changes.c.place
        with self._database.read() as connection:
            shown = (place >= after) & (place < after + limit)
            return changes_of(connection, [version], shown).get(version, [])

    def stored_response(self, key: IdempotencyKey) -> StoredResponse | None:
        """None where no edit came with that key. Raises `StoreDamaged` where it is not told any
        more how that was answered."""
        stored = tables.idempotency
        query = (
            sa.select(stored, tables.seals.c.seal)
            .select_from(
                tables.seals.outerjoin(
                    stored, (stored.c.api_key == key.api_key) & (stored.c.key == key.name)
                )
            )
            .where(tables.seals.c.kind == "idempotency", tables.seals.c.key == key.text)
        )
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        if row["key"] is None or seals.seal_of(stored, row) != row["seal"]:
            raise StoreDamaged(
                "What this Idempotency-Key was answered with was changed or removed.",
                param="Idempotency-Key",
                hint="Look for the edit with GET /edits; if it is not there, use a new key.",
            )
        return StoredResponse(
            row["request_digest"], row["status"], row["body"] or None, row["edit_id"]
        )

    def image(self, digest: str) -> bytes | None:
        """The PNG bytes of a stored picture; None when it is missing or damaged."""
        with self._database.read() as connection:
            row = (
                connection.execute(sa.select(tables.images).where(tables.images.c.digest == digest))
                .mappings()
                .one_or_none()
            )
        return None if row is None else intact_png(row)

    def images(self, digests: Sequence[str]) -> dict[str, bytes]:
        """The PNG bytes of stored pictures by digest, of those that are there and intact."""
        query = sa.select(tables.images).where(tables.images.c.digest.in_(digests))
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        intact = {row["digest"]: intact_png(row) for row in rows}
        return {digest: png for digest, png in intact.items() if png is not None}

    def originals(self, edit_ids: Sequence[str]) -> list[tuple[EditRecord, bytes | None]]:
        """What edits were made of, in the order asked for: record and picture, as PNG.

        The picture is None where it is missing or damaged. Raises `LookupError` on an unknown id.
        """
        query = (
            RECORDS.add_columns(tables.images.c.png, tables.images.c.png_digest)
            .outerjoin(tables.images, tables.images.c.digest == tables.edits.c.image_digest)
            .where(EDIT_ID.in_(edit_ids))
        )
        with self._database.read() as connection:
            rows = {row["edit_id"]: row for row in connection.execute(query).mappings()}
        return [(as_it_stands(rows[i]), intact_png(rows[i])) for i in edit_ids]

    def artifacts(self, edit_ids: list[str], *, at: int = NOW) -> Iterator[StoredArtifact]:
        """Of each edit the bytes that count and what is needed to check them, in no special order.

        `at` is the version whose keys are wanted; see `Ledger.revision`.
        """
        for start in range(0, len(edit_ids), _PAGE):
            page = edit_ids[start : start + _PAGE]
            with self._database.read() as connection:
                rows = connection.execute(ARTIFACTS, {"ids": page, "at": at}).mappings().all()
            for row in rows:
                yield StoredArtifact.from_row(row)

    def artifact(self, edit_id: str, *, at: int = NOW) -> StoredArtifact:
        """Of one edit. Raises `LookupError` on an unknown id."""
        for stored in self.artifacts([edit_id], at=at):
            return stored
        raise LookupError(f"edit {edit_id} vanished from the database")


def changes_of(
    connection: sa.Connection, versions: Sequence[int], shown: sa.ColumnElement[bool]
) -> dict[int, list[Change]]:
    """Changes of these events by version, in their order."""
    table = tables.changes
    query = sa.select(table).where(table.c.version.in_(versions), shown)
    found: defaultdict[int, list[Change]] = defaultdict(list)
    for row in connection.execute(query.order_by(table.c.version, table.c.place)):
        found[row.version].append(Change(row.edit_id, row.before, row.after))
    return found


def intact_png(row: Mapping[Any, Any]) -> bytes | None:
    """A stored picture, if it is there and its bytes are what they were."""
    png = row["png"]
    return png if isinstance(png, bytes) and digest_of(png) == row["png_digest"] else None


class Searchable(Protocol):
    """What `GET /edits` looks into."""

    @property
    def prompt(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


def may_match(text: str | None, tag: str | None) -> sa.ColumnElement[bool]:
    """What is true of every row of `edits` that `matches`, and of few others."""
    edits = tables.edits.c
    wanted: list[sa.ColumnElement[bool]] = []
    if tag is not None:
        wanted.append(sa.func.instr(edits.tags, json.dumps(tag, ensure_ascii=False)) > 0)
    if text is not None:
        texts = edits.prompt + "\n" + edits.target
        # Letters beyond ASCII may fold to letters of ASCII, and not the other way round.
        foreign = texts.op("GLOB")("*[^\x01-\x7f]*")
        needle = text.casefold()
        if needle.isascii():
            wanted.append((sa.func.instr(sa.func.lower(texts), needle) > 0) | foreign)
        else:
            wanted.append(foreign)
    return sa.or_(edits.id.is_(None), sa.and_(sa.true(), *wanted))


def matches(record: Searchable, text: str | None, tag: str | None) -> bool:
    """Whether `record` has the tag, and the text in its prompt or target, whatever the case."""
    if tag is not None and tag not in record.tags:
        return False
    if text is None:
        return True
    needle = text.casefold()
    return needle in record.prompt.casefold() or needle in record.target.casefold()
