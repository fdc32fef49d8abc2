"""SQLite: write-ahead log, every commit synced to disk, one writer at a time.

The driver's own transaction handling is switched off (it would start transactions late, and
commit before DDL); `BEGIN` is sent here instead, `BEGIN IMMEDIATE` for a writer, so that a writer
waits for the lock at its first statement and never fails halfway. A file that is not there is
never made on the way: only `CREATE` makes one.
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event

WRITER = {"errata_writer": True}
"""Execution options of a connection that will write."""

Mode = Literal["create", "write", "read"]


def create_engine(file: Path, mode: Mode, *, timeout_s: float) -> sa.Engine:
    """An engine whose every connection keeps the promises above. `timeout_s` bounds lock waits."""
    url = sa.URL.create("sqlite", database=str(file))
    engine = sa.create_engine(url, connect_args={"timeout": timeout_s})

    def connect(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(f"file:{quote(str(file))}?{_query(file, mode)}", uri=True, **options)

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", _prepare_reader if mode == "read" else _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def database_file(url: sa.URL) -> Path:
    """The file behind `url`."""
    return Path(str(url.database)).resolve()


def log_files(file: Path) -> list[Path]:
    """The write-ahead log of a database, and its index."""
    return [file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm")]


def has_log(file: Path) -> bool:
    """Whether transactions lie beside the database: it is open, or was not closed properly."""
    log = log_files(file)[0]
    return log.exists() and log.stat().st_size > 0


def _query(file: Path, mode: Mode) -> str:
    if mode == "read":
        # A reader of the log makes an index of it; without a log, nothing is written at all.
        return "mode=ro" if has_log(file) else "mode=ro&immutable=1"
    return "mode=rwc" if mode == "create" else "mode=rw"


def _prepare(connection: Any, _record: Any) -> None:
    _prepare_reader(connection, _record)
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "fullfsync = ON",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_reader(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    # Text that is no Unicode is for whoever checks the row it stands in, not an end of the query.
    connection.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("errata_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
