"""PostgreSQL: every commit synced by the server, one writer at a time, views that stand still.

A writer takes an advisory lock at its first statement, as SQLite's `BEGIN IMMEDIATE` does, and so
never meets another one halfway. Whoever serves a database holds a second lock for as long as it
is connected. If that connection breaks, the row of the owner (`app/store/owner.py`) still fences.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event

from app.errors import StartupError
from app.store.dialects.base import Dialect, Mode

_WRITER, _SERVER = 0x45525241_01, 0x45525241_02
"""Advisory locks of the database: of one transaction that writes, and of the server."""

_CONNECT_S = 10

_HOLDER = sa.text(
    "SELECT activity.application_name FROM pg_locks AS locks "
    "JOIN pg_stat_activity AS activity ON activity.pid = locks.pid "
    "WHERE locks.locktype = 'advisory' AND locks.granted AND locks.database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND (locks.classid::bigint << 32) + locks.objid::bigint = :key"
)


class Postgresql(Dialect):
    """A database of a server. It is remembered in the data directory."""

    commit_may_be_in_doubt = True

    def __init__(self, url: sa.URL, data_dir: Path | None) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError as error:
            raise StartupError(
                "PostgreSQL needs its driver: pip install --require-hashes -r "
                "requirements/postgres.lock, or pip install 'errata[postgres]'"
            ) from error
        self._url = url.set(drivername="postgresql+psycopg")
        self.name = url.set(drivername="postgresql").render_as_string(hide_password=True)
        where = f"{url.host or 'local'}-{url.port or 5432}-{url.database or url.username}"
        self.anchor = (data_dir or Path()).resolve() / f"postgresql-{quote(where, safe='')}.anchor"

    @contextmanager
    def lock(self) -> Iterator[None]:
        engine = self._engine(timeout_s=5.0)
        try:
            with _reachable(self.name), engine.connect() as connection:
                if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_SERVER))):
                    holder = connection.scalar(_HOLDER, {"key": _SERVER}) or "process unknown"
                    raise StartupError(
                        f"the database {self.name} is in use by another server ({holder}); "
                        "stop that one, or give this one another --database-url"
                    )
                connection.commit()  # the lock is the session's; no transaction is left open
                yield
        finally:
            engine.dispose()

    def exists(self) -> bool:
        engine = self.engine("read", timeout_s=5.0)
        try:
            with _reachable(self.name), engine.connect() as connection:
                return bool(sa.inspect(connection).get_table_names())
        finally:
            engine.dispose()

    def absence(self, *, expected: bool) -> str | None:
        return f"the database {self.name} is empty" if expected and not self.exists() else None

    def begin(self, make: Callable[[sa.Engine], None]) -> None:
        """In one transaction: tables can be made in one here."""
        self.anchor.parent.mkdir(parents=True, exist_ok=True)
        engine = self.engine("write", timeout_s=5.0)
        try:
            with _reachable(self.name), engine.connect() as connection:
                _require_promises(connection, self.name)
            make(engine)
        finally:
            engine.dispose()

    def engine(self, mode: Mode, *, timeout_s: float) -> sa.Engine:
        engine = self._engine(timeout_s=timeout_s)
        event.listen(engine, "begin", _begin)
        return engine

    def place(self) -> Hashable:
        return None

    def to_begin_anew(self) -> str:
        drop = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        return f"psql '{self.name}' -c '{drop}' && rm -f '{self.anchor}'"

    def _engine(self, *, timeout_s: float) -> sa.Engine:
        options = {
            "lock_timeout": round(timeout_s * 1000),
            "synchronous_commit": "on",
            "client_encoding": "UTF8",
        }
        return sa.create_engine(
            self._url,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": _CONNECT_S,
                "application_name": f"errata: process {os.getpid()} on {socket.gethostname()}",
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            },
        )


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("errata_writer", False):
        # Sees what was committed before it: each statement reads the newest state.
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER)))
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _require_promises(connection: sa.Connection, name: str) -> None:
    """What an acknowledged edit rests on, and what texts are made of."""
    for setting, wanted in (("fsync", "on"), ("server_encoding", "UTF8")):
        value = connection.exec_driver_sql(f"SHOW {setting}").scalar()
        if value != wanted:
            raise StartupError(
                f"the database {name} has {setting} = {value}, and {wanted} is needed: an edit "
                "that was acknowledged must survive, letter for letter"
            )


@contextmanager
def _reachable(name: str) -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise StartupError(
            f"cannot reach the database {name}: {str(error.orig).strip()}; check --database-url, "
            "and that the server runs"
        ) from error
