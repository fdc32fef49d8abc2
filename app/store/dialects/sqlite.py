"""SQLite: write-ahead log, every commit synced to disk, one writer at a time.

The driver's own transaction handling is switched off (it would start transactions late, and
commit before DDL); `BEGIN` is sent here instead, `BEGIN IMMEDIATE` for a writer, so that a writer
waits for the lock at its first statement and never fails halfway. A file that is not there is
never made on the way: only `begin` makes one.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event

from app.errors import StartupError, StoreCorrupt
from app.locking import InstanceLock
from app.store.anchor import anchor_file
from app.store.dialects.base import Dialect, Mode, Stamp


class Sqlite(Dialect):
    """A file, with its log and its anchor beside it."""

    def __init__(self, url: sa.URL, data_dir: Path | None = None) -> None:
        self.file = Path(str(url.database)).resolve()
        self.name = str(self.file)
        self.anchor = anchor_file(self.file)
        self.checkpoint = self.file.with_name(f"{self.file.name}.checkpoint")

    def lock(self) -> AbstractContextManager[object]:
        return InstanceLock.of_database(self.file)

    def exists(self) -> bool:
        return self.file.exists()

    def absence(self, *, expected: bool) -> str | None:
        if not self.file.exists():
            expected = expected or self.was_interrupted()
            return f"there is no database at {self.file}" if expected else None
        if not self.file.is_file():
            raise StartupError(f"{self.file} is no file, so it is no database")
        if self.file.stat().st_size == 0:
            return f"the database {self.file} is empty (0 bytes)"
        return None

    def begin(self, make: Callable[[sa.Engine], None]) -> None:
        """Made aside and moved into place."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        new = self.file.with_name(f"{self.file.name}.new")
        _remove(new)
        engine = _engine(new, lambda: "rwc", _prepare, timeout_s=5.0)
        try:
            make(engine)
            engine.dispose()  # the last one to close it leaves no log
            new.replace(self.file)
        except BaseException:
            engine.dispose()
            _remove(new)
            raise

    def engine(self, mode: Mode, *, timeout_s: float) -> sa.Engine:
        if mode == "write":
            return _engine(self.file, lambda: "rw", _prepare, timeout_s=timeout_s)
        return _engine(self.file, self._read_mode, _prepare_reader, timeout_s=timeout_s)

    def _read_mode(self) -> str:
        # A reader of the log makes an index of it; without a log, nothing is written at all.
        return "ro" if self.was_interrupted() else "ro&immutable=1"

    def place(self) -> Hashable:
        try:
            status = self.file.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def stamp(self) -> Stamp | None:
        """Device, inode, size, and both times to the nanosecond; None with transactions beside."""
        if self.was_interrupted():
            return None
        try:
            now = self.file.stat()
        except OSError:
            return None
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns

    def was_interrupted(self) -> bool:
        """Whether transactions lie beside it: it is open, or was not closed properly."""
        log = _log_files(self.file)[0]
        return log.exists() and log.stat().st_size > 0

    def check(self, connection: sa.Connection) -> None:
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if verdict != "ok":
            raise StoreCorrupt(f"the database {self.file} is damaged: {verdict}")

    def log_of_another(self) -> str | None:
        if not self.was_interrupted():
            return None
        remove = shlex.join(["rm", "-f", *map(str, _log_files(self.file))])
        return (
            "if it was put back from a backup, the log of the one before is still beside it; with "
            f"the server stopped: {remove}"
        )

    def to_begin_anew(self) -> str:
        everything = [self.file, *_log_files(self.file), self.anchor]
        return shlex.join(["rm", "-f", *map(str, everything)])


def _engine(
    file: Path,
    mode: Callable[[], str],
    prepare: Callable[[Any, Any], None],
    *,
    timeout_s: float,
) -> sa.Engine:
    url = sa.URL.create("sqlite", database=str(file))
    engine = sa.create_engine(url, connect_args={"timeout": timeout_s})

    def connect(_dialect: Any, _record: Any, _args: Any, options: dict[str, Any]) -> Any:
        return sqlite3.connect(f"file:{quote(str(file))}?mode={mode()}", uri=True, **options)

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _log_files(file: Path) -> list[Path]:
    """The write-ahead log of a database, and its index."""
    return [file.with_name(f"{file.name}{suffix}") for suffix in ("-wal", "-shm")]


def _remove(file: Path) -> None:
    for path in (file, *_log_files(file)):
        path.unlink(missing_ok=True)


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
