"""The append-only log of edits and what hangs on it: one transaction per version.

All functions block and belong on a worker thread. There is one writer (`app/service.py` holds
the lock); readers are free.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from app.errors import StoreCorrupt
from app.store import tables
from app.store.commits import (
    Commit,
    Created,
    Reencoded,
    Rescoped,
    Restored,
    ScopeChanged,
    Stamp,
    event_of,
)
from app.store.current import ARTIFACTS, NOW, RECORDS, StoredArtifact, as_it_stands
from app.store.database import Database
from app.store.ledger import Ledger
from app.store.records import EditRecord, Event, IdempotencyKey, digest_of

_PAGE = 500


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

        Raises `StoreUnavailable`, and `StoreCorrupt` when another writer took the number.
        """
        event = event_of(commit, stamp)
        with self._database.write() as connection:
            moved = connection.execute(
                sa.update(tables.head)
                .where(tables.head.c.version == event.version - 1)
                .values(version=event.version)
            )
            if moved.rowcount != 1:
                raise StoreCorrupt(f"version {event.version} was taken by another writer")
            connection.execute(sa.insert(tables.events).values(event.row()))
            match commit:
                case Created():
                    _insert_edit(connection, commit)
                case Reencoded():
                    made_anew = commit.reencoding.edit_id
                    _insert_artifact(connection, made_anew, event.version, commit.artifact)
                case Restored() | ScopeChanged():
                    for rescoped in commit.rescoped:
                        _insert_rescoped(connection, event.version, rescoped)
        return event

    def fold(self) -> tuple[Ledger, Event | None]:
        """The ledger and the last event, with the whole chain checked on the way.

        Raises `StoreCorrupt` naming the first version that does not add up.
        """
        ledger = Ledger()
        last: Event | None = None
        with self._database.read() as connection:
            places = {record.version: record.place for record in _all_records(connection)}
            scoped = _all_scoped(connection)
            for row in connection.execute(_ordered(tables.events)).mappings():
                try:
                    event = Event.from_row(row)
                    _check_link(event, row["digest"], last)
                    created = places.pop(event.version, None)
                    if (event.type == "edit_created") != (created is not None):
                        raise ValueError("event and edit do not belong together")
                    if (event.type == "reencoded") != (event.reencoding is not None):
                        raise ValueError("it does not say what it made anew")
                    if {s.edit_id for s in event.scopes} != scoped.pop(event.version, set()):
                        raise ValueError("it does not say whose scope it changed")
                    ledger.apply(
                        event.version,
                        event.changes,
                        created=created,
                        remade=event.reencoding.edit_id if event.reencoding else None,
                        scopes={s.edit_id: s.scope for s in event.scopes},
                    )
                except (ValueError, KeyError, TypeError) as error:
                    raise StoreCorrupt(f"event {row['version']} is damaged: {error}") from error
                last = event
            head = connection.scalar(sa.select(tables.head.c.version))
        if head != ledger.head:
            raise StoreCorrupt(f"the head is {head}, and the last event is {ledger.head}")
        return ledger, last

    def record(self, edit_id: str) -> EditRecord | None:
        """The edit as it stands, made anew or not."""
        query = RECORDS.where(tables.edits.c.id == edit_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return as_it_stands(row) if row else None

    def first_record(self, edit_id: str) -> EditRecord | None:
        """The edit as it was committed."""
        query = sa.select(tables.edits).where(tables.edits.c.id == edit_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return EditRecord.from_row(row) if row else None

    def records(
        self,
        *,
        below: str | None = None,
        text: str | None = None,
        tag: str | None = None,
        limit: int,
        among: Set[str],
    ) -> list[EditRecord]:
        """Up to `limit` records of the ids `among`, newest first, older than the id `below`."""
        found: list[EditRecord] = []
        query = RECORDS.order_by(tables.edits.c.id.desc())
        if below is not None:
            query = query.where(tables.edits.c.id < below)
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=_PAGE).execute(query).mappings()
            for record in map(as_it_stands, rows):
                if record.id in among and matches(record, text, tag):
                    found.append(record)
                    if len(found) == limit:
                        break
        return found

    def events(self, *, after: int = 0, limit: int, edit_id: str | None = None) -> list[Event]:
        """Events newer than version `after`, oldest first; of one edit, or all."""
        query = _ordered(tables.events).where(tables.events.c.version > after).limit(limit)
        if edit_id is not None:
            # Ids hold no wildcard, and occur in `changes` only as a quoted value.
            query = query.where(tables.events.c.changes.contains(f'"{edit_id}"'))
        with self._database.read() as connection:
            return [Event.from_row(row) for row in connection.execute(query).mappings()]

    def stored_response(self, key: IdempotencyKey) -> StoredResponse | None:
        with self._database.read() as connection:
            row = (
                connection.execute(
                    sa.select(tables.idempotency).where(
                        tables.idempotency.c.api_key == key.api_key,
                        tables.idempotency.c.key == key.name,
                    )
                )
                .mappings()
                .one_or_none()
            )
        if row is None:
            return None
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

    def originals(self, edit_ids: Sequence[str]) -> list[tuple[EditRecord, bytes | None]]:
        """What edits were made of, in the order asked for: record and picture, as PNG.

        The picture is None where it is missing or damaged. Raises `LookupError` on an unknown id.
        """
        query = (
            RECORDS.add_columns(tables.images.c.png, tables.images.c.png_digest)
            .outerjoin(tables.images, tables.images.c.digest == tables.edits.c.image_digest)
            .where(tables.edits.c.id.in_(edit_ids))
        )
        with self._database.read() as connection:
            rows = {row["id"]: row for row in connection.execute(query).mappings()}
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


def intact_png(row: Mapping[Any, Any]) -> bytes | None:
    """A stored picture, if it is there and its bytes are what they were."""
    png = row["png"]
    return bytes(png) if png is not None and digest_of(png) == row["png_digest"] else None


def _insert_edit(connection: sa.Connection, new: Created) -> None:
    record, image = new.record, new.image
    known = connection.scalar(
        sa.select(sa.func.count()).where(tables.images.c.digest == image.digest)
    )
    if not known:
        connection.execute(
            sa.insert(tables.images).values(
                digest=image.digest,
                png=image.png,
                png_digest=digest_of(image.png),
                width=image.width,
                height=image.height,
            )
        )
    connection.execute(sa.insert(tables.edits).values(record.row()))
    _insert_artifact(connection, record.id, record.version, new.artifact)
    connection.execute(sa.delete(tables.edit_jobs).where(tables.edit_jobs.c.id == record.id))
    if new.key is not None:
        connection.execute(
            sa.insert(tables.idempotency).values(
                api_key=new.key.key.api_key,
                key=new.key.key.name,
                request_digest=new.key.request_digest,
                status=new.key.status,
                body="",
                edit_id=record.id,
                created_at=record.created_at,
            )
        )
    connection.execute(
        sa.update(tables.edits)
        .where(tables.edits.c.id == record.id)
        .values(timings_ms=json.dumps(dict(new.timings_ms())))
    )


def _insert_artifact(connection: sa.Connection, edit_id: str, version: int, data: bytes) -> None:
    row = {"edit_id": edit_id, "version": version, "data": data, "digest": digest_of(data)}
    connection.execute(sa.insert(tables.artifacts).values(row))


def _insert_rescoped(connection: sa.Connection, version: int, rescoped: Rescoped) -> None:
    edit_id = rescoped.rescoping.edit_id
    _insert_artifact(connection, edit_id, version, rescoped.artifact)
    connection.execute(sa.insert(tables.scoped).values(edit_id=edit_id, version=version))


def _all_records(connection: sa.Connection) -> Iterator[EditRecord]:
    rows = connection.execution_options(yield_per=_PAGE).execute(_ordered(tables.edits))
    yield from map(EditRecord.from_row, rows.mappings())


def _all_scoped(connection: sa.Connection) -> dict[int, set[str]]:
    """By version, which edits' scopes it changed."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for version, edit_id in connection.execute(
        sa.select(tables.scoped.c.version, tables.scoped.c.edit_id)
    ):
        found[version].add(edit_id)
    return found


def _ordered(table: sa.Table) -> sa.Select[tuple[object, ...]]:
    return sa.select(table).order_by(table.c.version)


def _check_link(event: Event, digest: str, previous: Event | None) -> None:
    if event.previous_digest != (previous.digest if previous else None):
        raise ValueError("it does not follow from the event before it")
    if event.digest != digest:
        raise ValueError("its content does not match its digest")


class Searchable(Protocol):
    """What `GET /edits` looks into."""

    @property
    def prompt(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


def matches(record: Searchable, text: str | None, tag: str | None) -> bool:
    """Whether `record` has the tag, and the text in its prompt or target, whatever the case."""
    if tag is not None and tag not in record.tags:
        return False
    if text is None:
        return True
    needle = text.casefold()
    return needle in record.prompt.casefold() or needle in record.target.casefold()
