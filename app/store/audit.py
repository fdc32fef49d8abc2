"""History checked and folded: what cannot be believed is named, and harms nothing but itself.

The chain comes first. If it does not hold, or ends elsewhere than the head, nothing can be told of
anything, and the server does not start. Once it holds, the seals are believed, and the ledger is
made of them; each row that does not agree with its seal is one `Damage`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from app.errors import StoreCorrupt
from app.store import owner, tables
from app.store.ledger import Change, Ledger
from app.store.records import Event, IdempotencyKey
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
    sealed = _all_seals(connection)
    ledger, last, seal = _fold(connection, sealed)
    head = [tuple(row) for row in connection.execute(sa.select(tables.head))]
    if head != [(1, ledger.head)]:
        told = head[0][1] if head else "missing"
        raise StoreCorrupt(f"the head is {told}, and the last event is {ledger.head}")
    if beyond := set(sealed) - set(range(1, ledger.head + 1)):
        raise StoreCorrupt(
            f"there are seals of version {min(map(str, beyond))}, which there is no event for"
        )
    rows: dict[tuple[str, str, int], Seal] = {
        (s.kind, s.key, s.version): s for brought in sealed.values() for s in brought
    }
    damage = [*_damage(connection, rows, thorough=thorough), *job_damage(connection)]
    return Audit(ledger, last, seal, tuple(sorted(damage)))


def _all_seals(connection: sa.Connection) -> dict[int, list[Seal]]:
    found: defaultdict[int, list[Seal]] = defaultdict(list)
    for row in connection.execute(sa.select(tables.seals)):
        found[row.version].append(Seal(*row))
    return dict(found)


def _fold(
    connection: sa.Connection, sealed: Mapping[int, list[Seal]]
) -> tuple[Ledger, Event | None, str | None]:
    ledger = Ledger()
    last: Event | None = None
    seal: str | None = None
    events = sa.select(tables.events).order_by(tables.events.c.version)
    changes = _Changes(connection)
    for row in connection.execute(events).mappings():
        try:
            together = sealed.get(row["version"], [])
            brought = [s for s in together if s.kind != "events"]
            own = [s for s in together if s.kind == "events"]
            seal = chained(seal, row, brought)
            if own != [Seal("events", "", row["version"], seal)]:
                raise ValueError("it and what it brought do not match its seal")
            event = Event.from_row(row, changes.of(row["version"]))
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
    changes.require_end()
    return ledger, last, seal


class _Changes:
    """Rows of `changes`, taken in the order of their events."""

    def __init__(self, connection: sa.Connection) -> None:
        table = tables.changes
        query = sa.select(table).order_by(table.c.version, table.c.place)
        self._rows = iter(connection.execution_options(yield_per=_PAGE).execute(query))
        self._next = next(self._rows, None)

    def of(self, version: int) -> list[Change]:
        found: list[Change] = []
        while self._next is not None and self._next.version == version:
            found.append(Change(self._next.edit_id, self._next.before, self._next.after))
            self._next = next(self._rows, None)
        return found

    def require_end(self) -> None:
        """Raises `StoreCorrupt` where rows belong to no event, and have held up the others."""
        if self._next is not None:
            raise StoreCorrupt(
                f"there are changes of version {self._next.version}, which there is no event for"
            )


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


def _damage(
    connection: sa.Connection, sealed: dict[tuple[str, str, int], Seal], *, thorough: bool
) -> Iterator[Damage]:
    by_key: dict[tuple[str, str], Seal] = {
        (s.kind, s.key): s for s in sealed.values() if s.kind != "artifacts"
    }
    missing = {name for name in sealed if name[0] != "events"}
    for kind in ("edits", "artifacts", "images", "idempotency"):
        table = tables.metadata.tables[kind]
        for key, version, row in _rows(connection, kind, thorough=thorough):
            is_artifact = kind == "artifacts"
            seal = sealed.get((kind, key, version)) if is_artifact else by_key.get((kind, key))
            if seal is None:
                yield Damage(kind, str(key), "was brought by no event")
                continue
            missing.discard((kind, key, seal.version))
            if row is not None and seal_of(table, row) != seal.seal:
                yield Damage(kind, str(key), "was changed")
    for kind, key, _ in missing:
        yield Damage(kind, key, "was removed")


def _rows(
    connection: sa.Connection, kind: str, *, thorough: bool
) -> Iterator[tuple[str, int, Mapping[Any, Any] | None]]:
    """Key, version and row; of pictures only the key, unless it is thorough."""
    table = tables.metadata.tables[kind]
    name = {"edits": "id", "artifacts": "edit_id", "images": "digest"}.get(kind)
    if kind == "images" and not thorough:
        yield from ((key, 0, None) for key in connection.scalars(sa.select(table.c.digest)))
        return
    query = sa.select(*sealed_columns(table))
    for row in connection.execution_options(yield_per=_PAGE).execute(query).mappings():
        key = row[name] if name else IdempotencyKey(row["key"], row["api_key"]).text
        yield key, row.get("version", 0), row


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
