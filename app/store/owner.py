"""Which store a database is, and which server writes it: one row, sealed, checked by every write.

Whoever opens the database to write takes it over: the epoch goes up by one. A server that had it
before finds another epoch in its next transaction, and writes nothing more.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

import sqlalchemy as sa

from app.errors import StoreCorrupt, StoreDamaged, StoreLost
from app.store import tables
from app.store.seals import number_of, seal_of

_OWNER = sa.select(tables.store.c.store_id, tables.store.c.epoch, tables.store.c.owner)
_NO_JOBS = f"{0:064x}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The row of `store`. `jobs` is the exclusive or of the seals of all jobs."""

    store_id: str
    epoch: int
    owner: str
    jobs: str


def begin(connection: sa.Connection) -> None:
    """Name a new store, owned by nobody."""
    first = Owner(secrets.token_hex(16), 0, "nobody", _NO_JOBS)
    connection.execute(sa.insert(tables.store).values(_sealed(first)))


def read(connection: sa.Connection) -> Owner:
    """Raises `StoreCorrupt` where the row is not there, or was changed."""
    row = connection.execute(sa.select(tables.store)).mappings().one_or_none()
    if row is None or seal_of(tables.store, row) != row["seal"]:
        raise StoreCorrupt(
            "the row that says which store this is (table store) was changed or removed; "
            "restore the database from a backup"
        )
    return Owner(**{name: row[name] for name in Owner.__slots__})


def claim(connection: sa.Connection) -> Owner:
    """Take the store over."""
    before = read(connection)
    me = f"process {os.getpid()} on {socket.gethostname()}"
    mine = Owner(before.store_id, before.epoch + 1, me, before.jobs)
    _write(connection, mine)
    return mine


def require(connection: sa.Connection, mine: Owner) -> None:
    """Raises `StoreLost` when somebody else has taken over since."""
    found = connection.execute(_OWNER).one_or_none()
    if found is None or (found.store_id, found.epoch) != (mine.store_id, mine.epoch):
        by = "something else" if found is None else str(found.owner)
        raise StoreLost(f"The database was taken over by {by}.", retry_after_s=30)


def count_job(connection: sa.Connection, *seals: str) -> None:
    """Take note that jobs with these seals came, or went. Raises `StoreDamaged`."""
    try:
        now = read(connection)
        total = int(now.jobs, 16)
        for seal in seals:
            total ^= number_of(seal)
    except (StoreCorrupt, ValueError) as error:
        raise StoreDamaged("Edits that are not committed cannot be counted.") from error
    _write(connection, Owner(now.store_id, now.epoch, now.owner, f"{total:064x}"))


def _write(connection: sa.Connection, owner: Owner) -> None:
    connection.execute(sa.update(tables.store).values(_sealed(owner)))


def _sealed(owner: Owner) -> dict[str, object]:
    row = {"id": 1, **{name: getattr(owner, name) for name in Owner.__slots__}}
    return row | {"seal": seal_of(tables.store, row)}
