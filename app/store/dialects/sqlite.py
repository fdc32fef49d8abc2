"""SQLite: write-ahead log, every commit synced to disk, one writer at a time.

The driver's own transaction handling is switched off (it would start transactions late, and
commit before DDL); `BEGIN` is sent here instead, `BEGIN IMMEDIATE` for a writer, so that a writer
waits for the lock at its first statement and never fails halfway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

WRITER = {"errata_writer": True}
"""Execution options of a connection that will write."""


def create_engine(url: sa.URL, *, timeout_s: float) -> sa.Engine:
    """An engine whose every connection keeps the promises above. `timeout_s` bounds lock waits."""
    engine = sa.create_engine(url, connect_args={"timeout": timeout_s})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def database_file(url: sa.URL) -> Path:
    """The file behind `url`."""
    return Path(str(url.database))


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("errata_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
