"""How far the webhook's receiver has been told, in the database. No part of history.

All functions block and belong on a worker thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa

from app.store import tables
from app.store.database import Database

_table = tables.webhook.c


@dataclass(frozen=True, slots=True)
class Cursor:
    """The newest event and the newest report that the receiver has."""

    version: int
    feedback_id: str | None


class WebhookLog:
    """The cursor of one receiver. Another URL is another receiver."""

    def __init__(self, database: Database, url: str) -> None:
        self._database = database
        self._url_digest = hashlib.sha256(url.encode()).hexdigest()

    def cursor(self) -> Cursor | None:
        """None where this receiver was never told anything. Raises what `Database.read` raises."""
        query = sa.select(_table.version, _table.feedback_id).where(
            _table.url_digest == self._url_digest
        )
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else Cursor(*row)

    def move(self, cursor: Cursor, *, at: str) -> None:
        """Raises what `Database.write` raises."""
        row = {
            "id": 1,
            "url_digest": self._url_digest,
            "version": cursor.version,
            "feedback_id": cursor.feedback_id,
            "updated_at": at,
        }
        with self._database.write() as connection:
            connection.execute(sa.delete(tables.webhook))
            connection.execute(sa.insert(tables.webhook), row)
