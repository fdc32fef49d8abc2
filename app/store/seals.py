"""Seals: a digest of every row that history brought, each chained to those before it.

The seal of an event covers its row, the seals of all rows that came with it, and the seal of the
event before. So the newest one speaks for everything; a copy of it lies outside the database
(`app/store/anchor.py`). A row is read together with its seal, and believed if they agree: what was
changed is found out by itself, what was removed leaves its seal behind, and what no event brought
has none. Bytes are not sealed but bound by the digest beside them, which is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from app.store import tables
from app.store.ledger import LedgerEdit, Scope
from app.store.records import EditRecord, digest_of

Kind = Literal["events", "edits", "artifacts", "images", "idempotency"]

UNSEALED = frozenset({"data", "png", "seal"})
"""Columns outside of the seal: bytes, and the seal itself."""
BROKEN = ""
"""For a row that was damaged before there were seals; nothing agrees with it."""


# Statements of the commit are built once: building them takes longer than running them.
_INSERT = sa.insert(tables.seals)
_EVENT_SEAL = sa.select(tables.seals.c.seal).where(
    tables.seals.c.kind == "events",
    tables.seals.c.key == "",
    tables.seals.c.version == sa.bindparam("version"),
)


class Seal(NamedTuple):
    """A row of `seals`. `key` is the edit's id, the picture's digest, or the idempotency key."""

    kind: Kind
    key: str
    version: int
    seal: str
    place: str | None = None


def sealed_columns(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.c if column.name not in UNSEALED]


def seal_of(table: sa.Table, row: Mapping[Any, Any]) -> str:
    """The seal of a row, as it is written or as it was read.

    NULL is left out: a column that a later schema adds changes no seal, where it is empty.
    """
    present = {
        name: value if type(value) is str else _plain(value)
        for name in _sealed_names(table)
        if (value := row[name]) is not None
    }
    return _digest([table.name, present])


@cache
def _sealed_names(table: sa.Table) -> tuple[str, ...]:
    return tuple(column.name for column in sealed_columns(table))


def number_of(seal: str) -> int:
    """A seal as a number of 256 bits. Raises `ValueError` where it is none."""
    return int(seal.removeprefix("sha256:"), 16)


def chained(previous: str | None, event: Mapping[Any, Any], brought: Iterable[Seal]) -> str:
    """The seal of an event that follows the one sealed `previous`."""
    rows = sorted(brought, key=lambda seal: (seal.kind, seal.key))
    told = [(s.kind, s.key, s.seal, s.place) for s in rows]
    return _digest([previous, seal_of(tables.events, event), told])


def append(
    connection: sa.Connection, version: int, event: Mapping[str, Any], brought: list[Seal]
) -> str:
    """Seal an event, and the rows that came with it. The event before must have been sealed."""
    seal = chained(event_seal(connection, version - 1), event, brought)
    rows = [*brought, Seal("events", "", version, seal)]
    connection.execute(_INSERT, [row._asdict() for row in rows])
    return seal


def event_seal(connection: sa.Connection, version: int) -> str | None:
    """None before the first event, and where there is no such event."""
    found: str | None = connection.scalar(_EVENT_SEAL, {"version": version})
    return found


def place_of(record: EditRecord) -> str:
    """What of an edit decides the state of edits, in the form that is sealed."""
    edit = record.place
    image, prompt = edit.slot
    return _canonical(
        {
            "image": image,
            "prompt": prompt,
            "supersedes": edit.supersedes,
            "rephrases": edit.scope.rephrases,
            "not_for": edit.scope.not_for,
        }
    )


def placed(edit_id: str, version: int, place: str) -> LedgerEdit:
    """The inverse of `place_of`."""
    values = json.loads(place)
    return LedgerEdit(
        edit_id,
        version,
        (values["image"], values["prompt"]),
        tuple(values["supersedes"]),
        Scope(tuple(values["rephrases"]), tuple(values["not_for"])),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return {"hex": value.hex()} if isinstance(value, bytes) else value


# ASCII: what a stranger wrote may be no Unicode at all. Made once: a start encodes a million rows.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def _digest(value: Any) -> str:
    return digest_of(_canonical(value).encode("ascii"))


def _canonical(value: Any) -> str:
    return _encode(value)
