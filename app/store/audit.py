"""History checked and folded: what cannot be believed is named, and harms nothing but itself.

The chain comes first. If it does not hold, or ends elsewhere than the head, nothing can be told of
anything, and the server does not start. Once it holds, the seals are believed, and the ledger is
made of them; each row that does not agree with its seal is one `Damage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.errors import StoreCorrupt
from app.store import owner, tables
from app.store.ledger import Change, Ledger
from app.store.records import Event
from app.store.seals import Seal, chained, number_of, placed, seal_of, sealed_columns

_PAGE = 500
_TOLD = {
    "edits": ("edit {}", "roll it back and make it again"),
    "artifacts": ("an artifact of edit {}", "roll the edit back and make it again"),
    "images": ("the picture {}", "its edits answer, but nothing can be tried against them"),
    "idempotency": ("the Idempotency-Key {}", "requests with that key are refused"),
    "edit_jobs": ("the pending, failed or cancelled edit {}", "send the request again"),
}
_REFUSALS = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """A row that is not what it was. `kind` is its table, `key` what it is known by there."""

    kind: str
    key: str
    what: str

    def __str__(self) -> str:
        name, remedy = _TOLD[self.kind]
        if self.what == "was brought by no event":
            remedy = "it is passed over"
        return (
            f"{name.format(self.key)}: its row (table {self.kind}) {self.what}; "
            f"restore a backup, or: {remedy}"
        )


@dataclass(frozen=True, slots=True)
class Audit:
    """`last` and `seal` are those of the newest event, None before any."""

    ledger: Ledger
    last: Event | None
    seal: str | None
    damage: tuple[Damage, ...]


def audit(connection: sa.Connection, *, thorough: bool) -> Audit:
    """Of pictures only whether they are there, unless it is `thorough`: reading them takes long.

    Raises `StoreCorrupt` naming the first version at which the chain breaks.
    """
    owner.read(connection)
    ledger, last, seal = _fold(connection)
    head = [tuple(row) for row in connection.execute(sa.select(tables.head))]
    if head != [(1, ledger.head)]:
        told = head[0][1] if head else "missing"
        raise StoreCorrupt(f"the head is {told}, and the last event is {ledger.head}")
    damage = [*_damage(connection, thorough=thorough), *job_damage(connection)]
    return Audit(ledger, last, seal, tuple(sorted(damage)))


def _fold(connection: sa.Connection) -> tuple[Ledger, Event | None, str | None]:
    query = sa.select(tables.events).order_by(tables.events.c.version)
    pages = connection.execution_options(yield_per=_PAGE)
    with (
        pages.execute(query) as events,
        closing(_ByVersion(pages, tables.seals)) as seals,
        closing(_ByVersion(pages, tables.changes)) as changes,
    ):
        return _folded(events, seals, changes)


def _folded(
    events: sa.CursorResult[Any], seals: _ByVersion, changes: _ByVersion
) -> tuple[Ledger, Event | None, str | None]:
    ledger = Ledger()
    last: Event | None = None
    seal: str | None = None
    for row in events.mappings():
        try:
            together = [Seal(*tuple(each)) for each in seals.of(row["version"])]
            brought = [s for s in together if s.kind != "events"]
            own = [s for s in together if s.kind == "events"]
            seal = chained(seal, row, brought)
            if own != [Seal("events", "", row["version"], seal)]:
                raise ValueError("it and what it brought do not match its seal")
            told = changes.of(row["version"])
            if [each.place for each in told] != list(range(len(told))):
                raise ValueError("what it changed is not in the order in which it was written")
            event = Event.from_row(row, [Change(r.edit_id, r.before, r.after) for r in told])
            if event.previous_digest != (last.digest if last else None):
                raise ValueError("it does not follow from the event before it")
            if event.digest != row["digest"]:
                raise ValueError("its content does not match its digest")
            _apply(ledger, event, brought)
        except _REFUSALS as error:
            raise StoreCorrupt(
                f"event {row['version']} is damaged: {error}; restore the database from a backup"
            ) from error
        last = event
    for rows in (seals, changes):
        rows.require_end()
    return ledger, last, seal


class _ByVersion:
    """Rows of a table that belong to events, taken in the order of these."""

    def __init__(self, pages: sa.Connection, table: sa.Table) -> None:
        order = [table.c.version, *(c for c in table.primary_key if c.name != "version")]
        query = sa.select(table).order_by(*order)
        self._name = table.name
        self._result = pages.execute(query)
        self._rows = iter(self._result)
        self._next = next(self._rows, None)
        self._stray: Any = None

    def close(self) -> None:
        self._result.close()

    def of(self, version: int) -> list[sa.Row[Any]]:
        found: list[sa.Row[Any]] = []
        while self._next is not None and _is_up_to(self._next.version, version):
            if self._next.version == version:
                found.append(self._next)
            elif self._stray is None:
                self._stray = self._next.version
            self._next = next(self._rows, None)
        return found

    def require_end(self) -> None:
        """Raises `StoreCorrupt` where rows belong to no event."""
        if self._stray is None and self._next is not None:
            self._stray = self._next.version
        if self._stray is not None:
            raise StoreCorrupt(
                f"there are {self._name} of version {self._stray}, which there is no event for"
            )


def _is_up_to(told: Any, version: Any) -> bool:
    """Whether a version comes no later; what is no number comes last."""
    return isinstance(told, int) and isinstance(version, int) and told <= version


def _apply(ledger: Ledger, event: Event, brought: list[Seal]) -> None:
    edits = [s for s in brought if s.kind == "edits"]
    if (event.type == "edit_created") != (len(edits) == 1):
        raise ValueError("event and edit do not belong together")
    if (event.type == "reencoded") != (event.reencoding is not None):
        raise ValueError("it does not say what it made anew")
    ledger.apply(
        event.version,
        event.changes,
        created=placed(edits[0].key, event.version, edits[0].place or "") if edits else None,
        remade=event.reencoding.edit_id if event.reencoding else None,
        scopes={s.edit_id: s.scope for s in event.scopes},
    )


def _damage(connection: sa.Connection, *, thorough: bool) -> Iterator[Damage]:
    """Rows and seals side by side, a table at a time: nothing of them is kept."""
    seals = tables.seals.c
    for kind, key in _KEYS.items():
        table = tables.metadata.tables[kind]
        together = (seals.kind == kind) & (seals.key == key)
        if kind == "artifacts":
            together &= seals.version == table.c.version
        is_read = kind != "images" or thorough
        columns = sealed_columns(table) if is_read else []
        query = sa.select(key.label("told_by"), seals.seal.label("sealed_as"), *columns)
        rows = connection.execution_options(yield_per=_PAGE).execute(
            query.select_from(table.outerjoin(tables.seals, together))
        )
        for row in rows.mappings():
            if row["sealed_as"] is None:
                yield Damage(kind, str(row["told_by"]), "was brought by no event")
            elif is_read and seal_of(table, row) != row["sealed_as"]:
                yield Damage(kind, str(row["told_by"]), "was changed")
        # As a list that the database makes once: not every key has an index.
        names = [key, table.c.version] if kind == "artifacts" else [key]
        there = sa.select(*names).where(key.is_not(None))
        known = sa.tuple_(seals.key, seals.version) if kind == "artifacts" else seals.key
        missing = sa.select(seals.key).where(seals.kind == kind, known.not_in(there))
        for gone in connection.scalars(missing):
            yield Damage(kind, gone, "was removed")


_key, _api_key = tables.idempotency.c.key, tables.idempotency.c.api_key
_KEYS: Mapping[str, sa.ColumnElement[Any]] = {
    "edits": tables.edits.c.id,
    "artifacts": tables.artifacts.c.edit_id,
    "images": tables.images.c.digest,
    "idempotency": sa.case((_api_key != "", _api_key + "\n" + _key), else_=_key),
}
"""What a row of each sealed table is known by; see `IdempotencyKey.text`."""


def job_damage(connection: sa.Connection) -> list[Damage]:
    """Edits that are not committed and are not what they were, or are there no more."""
    table, changed, total = tables.edit_jobs, [], 0
    shows = table.c.png.is_not(None).label("shows")
    query = sa.select(*sealed_columns(table), table.c.seal, shows)
    for row in connection.execute(query).mappings():
        has_picture = row["shows"] == (row["png_digest"] is not None)
        if has_picture and seal_of(table, row) == row["seal"]:
            total ^= number_of(row["seal"])
        else:
            changed.append(Damage("edit_jobs", str(row["id"]), "was changed"))
    if not changed and f"{total:064x}" != owner.read(connection).jobs:
        return [Damage("edit_jobs", "(unknown)", "was removed, or came from nowhere")]
    return changed
