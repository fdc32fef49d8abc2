"""API keys in the database: labels, scopes, limits, digests; never a token.

They are no part of history: a key takes no version, and an edit keeps the label of the key that
made it. All functions block and belong on a worker thread.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import sqlalchemy as sa

from app.store import tables
from app.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One row of `api_keys`. Times are RFC 3339 in UTC. `salt` has 16 bytes, `digest` 32."""

    id: str
    label: str
    scope: str
    requests_per_minute: int | None
    edits_per_day: int | None
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    created_at: str
    created_by: str
    revoked_at: str | None = None
    revoked_by: str | None = None


class KeyLog:
    """Reads and writes `api_keys` and the pepper that their tags are made with."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[StoredKey]:
        """All of them, revoked ones too, oldest first."""
        query = sa.select(tables.api_keys).order_by(tables.api_keys.c.created_at)
        with self._database.read() as connection:
            return [StoredKey(**row) for row in connection.execute(query).mappings()]

    def pepper(self) -> bytes | None:
        """None before the first key."""
        with self._database.read() as connection:
            pepper: bytes | None = connection.scalar(sa.select(tables.keyring.c.pepper))
        return pepper

    def add(self, key: StoredKey, *, pepper: bytes) -> None:
        """Keep a key, and with the first one the pepper. Raises `StoreUnavailable`."""
        with self._database.write() as connection:
            if connection.scalar(sa.select(tables.keyring.c.pepper)) is None:
                connection.execute(sa.insert(tables.keyring).values(id=1, pepper=pepper))
            connection.execute(sa.insert(tables.api_keys).values(**asdict(key)))

    def revoke(self, key_id: str, *, at: str, by: str) -> None:
        """End a key for good. Raises `StoreUnavailable`."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(tables.api_keys)
                .where(tables.api_keys.c.id == key_id)
                .values(revoked_at=at, revoked_by=by)
            )
