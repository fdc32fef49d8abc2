"""Reports of answers in the database, each with its picture. No part of history.

All functions block and belong on a worker thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa

from app.store import tables
from app.store.database import Database

_table = tables.feedback.c


@dataclass(frozen=True, slots=True)
class Closing:
    """What came of a report."""

    by: Literal["edit", "scope", "dismissal"]
    edit_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One row of `feedback`, all but its picture. `applied` is a JSON list of edit ids.

    One from elsewhere is known by `source` and `source_id`; whose answer it was, nobody can say.
    """

    id: str
    status: str
    answer_id: str | None = None
    verdict: str
    correction: str | None
    comment: str | None
    prompt: str
    answer: str
    image_digest: str | None
    version: int | None = None
    applied: str = "[]"
    created_at: str
    created_by: str
    closed_by: str | None = None
    edit_id: str | None = None
    reason: str | None = None
    closed_at: str | None = None
    closed_actor: str | None = None
    source: str | None = None
    source_id: str | None = None

    @property
    def closing(self) -> Closing | None:
        match self.closed_by:
            case "edit" | "scope" | "dismissal" as by:
                return Closing(by, self.edit_id, self.reason)
            case _:
                return None


_REPORT = sa.select(*(_table[name] for name in Report.__slots__))


class FeedbackLog:
    """Reads and writes `feedback`. Every write raises `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, report: Report, png: bytes | None) -> None:
        with self._database.write() as connection:
            connection.execute(sa.insert(tables.feedback).values(**asdict(report), png=png))

    def close(self, report: Report) -> None:
        """Keep what came of it; its picture goes, which is stored with the edit if there is one."""
        names = ("status", "closed_by", "edit_id", "reason", "closed_at", "closed_actor")
        changed = {name: getattr(report, name) for name in names}
        with self._database.write() as connection:
            connection.execute(
                sa.update(tables.feedback).where(_table.id == report.id).values(**changed, png=None)
            )

    def one(self, feedback_id: str) -> Report | None:
        with self._database.read() as connection:
            row = connection.execute(_REPORT.where(_table.id == feedback_id)).mappings().first()
        return None if row is None else _of_row(row)

    def by_source(self, source: str, source_id: str) -> Report | None:
        query = _REPORT.where(_table.source == source, _table.source_id == source_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _of_row(row)

    def next_after(self, feedback_id: str) -> Report | None:
        query = _REPORT.where(_table.id > feedback_id).order_by(_table.id).limit(1)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _of_row(row)

    def page(self, *, status: str | None, below: str | None, limit: int) -> list[Report]:
        """Up to `limit` reports, newest first, older than the id `below`."""
        query = _REPORT.order_by(_table.id.desc()).limit(limit)
        if status is not None:
            query = query.where(_table.status == status)
        if below is not None:
            query = query.where(_table.id < below)
        with self._database.read() as connection:
            return [_of_row(row) for row in connection.execute(query).mappings()]

    def png(self, feedback_id: str) -> bytes | None:
        with self._database.read() as connection:
            png: bytes | None = connection.scalar(
                sa.select(_table.png).where(_table.id == feedback_id)
            )
        return png

    def count_open(self) -> int:
        with self._database.read() as connection:
            return connection.scalar(sa.select(sa.func.count()).where(_table.status == "open")) or 0

    def newest_id(self) -> str | None:
        with self._database.read() as connection:
            newest: str | None = connection.scalar(sa.select(sa.func.max(_table.id)))
        return newest


def _of_row(row: Mapping[Any, Any]) -> Report:
    return Report(**{name: row[name] for name in Report.__slots__})
