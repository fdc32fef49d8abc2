"""A database altered behind the server's back, with seals made right or not."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import sqlalchemy as sa

from app.store import owner, tables
from app.store.database import Database
from app.store.seals import seal_of, sealed_columns


def alter(database: Path, *statements: str) -> None:
    """What somebody with a shell can do to the file of a database."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def alter_jobs(database: Path, statement: str) -> None:
    """The same to edits that are not committed, as a server would have written it: sealed."""
    opened = Database.open(f"sqlite:///{database}")
    table = tables.edit_jobs
    query = sa.select(*sealed_columns(table), table.c.seal)
    with opened.write() as connection:
        connection.execute(sa.text(statement))
        for row in connection.execute(query).mappings().all():
            seal = seal_of(table, row)
            if seal != row["seal"]:
                connection.execute(
                    sa.update(table).where(table.c.id == row["id"]).values(seal=seal)
                )
                owner.count_job(connection, row["seal"], seal)
    opened.close()
