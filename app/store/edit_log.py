"""The append-only log of edits and what hangs on it: one transaction per version.

All functions block and belong on a worker thread. There is one writer (`app/service.py` holds
the lock); readers are free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa

from app.errors import StoreDamaged
from app.store import seals, tables
from app.store.audit import Audit, audit
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
from app.store.records import EditRecord, Event, IdempotencyKey, digest_of
from app.store.writing import write

_PAGE = 500
_INSERT_EVENT = sa.insert(tables.events)
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
        event = event_of(commit, stamp)
        row = event.row()
        with self._database.write() as connection:
            moved = connection.execute(_MOVE_HEAD, {"to": event.version})
            if moved.rowcount != 1:
                raise StoreDamaged(f"The head of the database is not {event.version - 1}.")
            connection.execute(_INSERT_EVENT, row)
            seal = seals.append(connection, event.version, row, write(connection, commit, event))
        self._database.committed(event.version, seal)
        return event

    def audit(self, *, thorough: bool = False) -> Audit:
        """The ledger and all that is wrong: see `app/store/audit.py`."""
        with self._database.read() as connection:
            return audit(connection, thorough=thorough)

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
        query = RECORDS.order_by(EDIT_ID.desc())
        if below is not None:
            query = query.where(below > EDIT_ID)
        with (
            self._database.read() as connection,
            connection.execution_options(yield_per=_PAGE).execute(query) as rows,
        ):
            for record in map(as_it_stands, rows.mappings()):
                if record.id in among and matches(record, text, tag):
                    found.append(record)
                    if len(found) == limit:
                        break
        return found

    def events(self, *, after: int = 0, limit: int, edit_id: str | None = None) -> list[Event]:
        """Events newer than version `after`, oldest first; of one edit, or all."""
        query = (
            sa.select(tables.events)
            .order_by(tables.events.c.version)
            .where(tables.events.c.version > after)
            .limit(limit)
        )
        if edit_id is not None:
            # Ids hold no wildcard, and occur in `changes` only as a quoted value.
            query = query.where(tables.events.c.changes.contains(f'"{edit_id}"'))
        with self._database.read() as connection:
            return [Event.from_row(row) for row in connection.execute(query).mappings()]

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


def matches(record: Searchable, text: str | None, tag: str | None) -> bool:
    """Whether `record` has the tag, and the text in its prompt or target, whatever the case."""
    if tag is not None and tag not in record.tags:
        return False
    if text is None:
        return True
    needle = text.casefold()
    return needle in record.prompt.casefold() or needle in record.target.casefold()
