"""How often each edit took part in an answer, in the database. No part of history.

All functions block and belong on a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from app.store import tables
from app.store.database import Database

_table = tables.firings.c

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Firing:
    """`count` times, and when last (RFC 3339, UTC)."""

    count: int
    last_at: str

    def and_then(self, later: Firing) -> Firing:
        return Firing(self.count + later.count, max(self.last_at, later.last_at))


class FiringLog:
    """Reads and writes `firings`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, firings: Mapping[str, Firing]) -> None:
        """Add to what is known, all of it or nothing. Raises what `Database.write` raises."""
        if not firings:
            return
        with self._database.write() as connection:
            known = _read(connection, firings)
            total = {i: known[i].and_then(new) if i in known else new for i, new in firings.items()}
            rows = [
                {"edit_id": edit_id, "count": each.count, "last_at": each.last_at}
                for edit_id, each in total.items()
            ]
            for page in _pages(list(known)):
                connection.execute(sa.delete(tables.firings).where(_table.edit_id.in_(page)))
            connection.execute(sa.insert(tables.firings), rows)

    def of(self, edit_ids: Iterable[str]) -> dict[str, Firing]:
        """Those of them that ever took part. Raises what `Database.read` raises."""
        with self._database.read() as connection:
            return _read(connection, edit_ids)


def _read(connection: sa.Connection, edit_ids: Iterable[str]) -> dict[str, Firing]:
    query = sa.select(_table.edit_id, _table.count, _table.last_at)
    rows = [
        row
        for page in _pages(list(edit_ids))
        for row in connection.execute(query.where(_table.edit_id.in_(page)))
    ]
    return {edit_id: Firing(count, last_at) for edit_id, count, last_at in rows}


def _pages(values: list[str]) -> Iterable[list[str]]:
    return (values[start : start + _PAGE] for start in range(0, len(values), _PAGE))
