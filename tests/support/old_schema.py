"""A database as an older version of the program would have left it, with all its rows."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[2]


_AS_TEXT = {
    ("events", "changes"): "(SELECT json_group_array(json_object('edit_id', edit_id, "
    "'from', before, 'to', after)) FROM (SELECT * FROM new.changes AS row "
    "WHERE row.version = old.version ORDER BY place))"
}
"""What of a table was written in another way: changes of events were a text, before they were rows.
"""


_TABLES = "images", "events", "edits", "artifacts", "idempotency", "edit_jobs"


def written_at(revision: str, database: Path, folder: Path) -> Path:
    """What `database` holds, in the schema of `revision`: a file in `folder`.

    Tables and columns that came later are left out, so nothing in them may be needed.
    """
    old = folder / f"{revision}.db"
    config = alembic.config.Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    engine = sa.create_engine(f"sqlite:///{old}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
    engine.dispose()
    with contextlib.closing(sqlite3.connect(old)) as copy, copy:
        copy.execute("ATTACH ? AS new", [str(database)])
        for table in (*_TABLES, "seals", "store"):
            columns = [row[1] for row in copy.execute(f"PRAGMA main.table_info({table})")]
            if columns:
                told = ", ".join(_AS_TEXT.get((table, name), name) for name in columns)
                copy.execute(f"INSERT INTO {table} SELECT {told} FROM new.{table} AS old")
        copy.execute("UPDATE head SET version = (SELECT version FROM new.head)")
    return old
