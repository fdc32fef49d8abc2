"""One database: opening it, its read and write transactions, and whether it is still ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from app.errors import StartupError, StoreDamaged, StoreLost, StoreUnavailable
from app.store import opening, owner
from app.store.anchor import Anchor, read_anchor, write_anchor
from app.store.checkpoint import Stamp
from app.store.dialects import sqlite
from app.store.owner import Owner
from app.store.schema import upgrade

logger = logging.getLogger(__name__)

OnDone = Callable[[str, float], None]

_BUSY = (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InternalError)


class Database:
    """Transactions on one database. Blocking: call it from a worker thread.

    `lost` is why nothing more may be written, once that is so: see `require_ours`.
    """

    def __init__(
        self, file: Path, engine: sa.Engine, *, on_done: OnDone = lambda _what, _s: None
    ) -> None:
        self._on_done = on_done
        self.file = file
        self.lost: StoreLost | None = None
        self.opened_as: Stamp | None = None
        """What the file was before this process wrote to it."""
        self._engine = engine
        self._place = _place(file)
        self._owner: Owner | None = None

    @classmethod
    def open(
        cls,
        url: sa.URL | str,
        *,
        migrate: bool = True,
        timeout_s: float = 5.0,
        on_done: OnDone = lambda _what, _s: None,
    ) -> Database:
        """Take the database over, with the schema that this program knows.

        `on_done` is called after each transaction, on its thread, with `read` or `write` and the
        seconds that it took.

        Where there was none, a new one is begun. Raises `StartupError` when it cannot be opened,
        is not the one that was here (`app/store/opening.py`), or has a schema that cannot be used.
        """
        file = sqlite.database_file(sa.make_url(url))
        with _named(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            opening.require_file(file)
            stamp = Stamp.of(file)
            if not file.exists():
                _begin(file, migrate=migrate)
            is_older = opening.examine(file, migrate=migrate)
            engine = sqlite.create_engine(file, "write", timeout_s=timeout_s)
            try:
                if is_older:
                    upgrade(engine)
                database = cls(file, engine, on_done=on_done)
                database.opened_as = stamp
                database._take_over()
            except BaseException:
                engine.dispose()
                raise
        return database

    @classmethod
    def open_to_read(cls, url: sa.URL | str, *, timeout_s: float = 5.0) -> Database:
        """As it is: nothing is written, no lock is taken, and a server may be using it.

        Raises what `open` raises.
        """
        file = sqlite.database_file(sa.make_url(url))
        with _named(file):
            opening.require_file(file)
            if not file.exists():
                raise StartupError(f"there is no database at {file}; check --data-dir")
            opening.examine(file, migrate=False)
        return cls(file, sqlite.create_engine(file, "read", timeout_s=timeout_s))

    def _take_over(self) -> None:
        anchor = read_anchor(self.file)
        with self._engine.connect() as connection:
            writer = connection.execution_options(**sqlite.WRITER)
            with writer.begin():
                opening.require_same_store(writer, self.file, anchor)
                self._owner = owner.claim(writer)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view. Raises `StoreUnavailable` when the database does not answer, and
        `StoreDamaged` when what it holds cannot be read."""
        with self._timed("read"), self._available(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction, committed when the block ends, rolled back when it raises.

        Raises `StoreUnavailable` when the database does not answer or cannot be written,
        `StoreLost` when it is no longer this server's, and `StoreDamaged` when rows are in the way
        that no event brought.
        """
        with self._timed("write"), self._available(), self._engine.connect() as connection:
            writer = connection.execution_options(**sqlite.WRITER)
            with writer.begin():
                self._check_ours(writer)
                yield writer

    def require_ours(self) -> None:
        """Raises `StoreLost` when another server has taken over, or the file is gone."""
        with self._available(), self._engine.begin() as connection:
            self._check_ours(connection)

    def committed(self, version: int, seal: str | None) -> None:
        """Remember outside of the database that it came as far as `version`."""
        if self._owner is not None:
            write_anchor(self.file, Anchor(self._owner.store_id, version, seal))

    def close(self) -> None:
        self._engine.dispose()

    def _check_ours(self, connection: sa.Connection) -> None:
        try:
            if _place(self.file) != self._place:
                raise StoreLost(
                    "The file of the database was moved, removed or replaced.", retry_after_s=30
                )
            if self._owner is not None:
                owner.require(connection, self._owner)
        except StoreLost as error:
            if self.lost is None:
                logger.error("the database %s is lost to this server: %s", self.file, error)
            self.lost = error
            raise

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._on_done(what, time.perf_counter() - began)

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except _BUSY as error:
            logger.error("the database does not answer: %s", getattr(error, "orig", error))
            raise StoreUnavailable("The database does not answer.", retry_after_s=1) from error
        except sa.exc.IntegrityError as error:
            raise StoreDamaged(
                f"The database holds rows that are in the way ({error.orig}); nothing was changed."
            ) from error
        except sa.exc.DatabaseError as error:
            logger.error("the database is damaged: %s", error.orig)
            raise StoreDamaged(f"The database is damaged: {error.orig}.") from error


def _begin(file: Path, *, migrate: bool) -> None:
    """A new database, made aside and moved into place: whatever happens, none is there by half."""
    if not migrate:
        raise StartupError(
            f"the database {file} has no schema, and migrations are switched off (ERRATA_MIGRATE)"
        )
    new = file.with_name(f"{file.name}.new")
    for path in (new, *sqlite.log_files(new)):
        path.unlink(missing_ok=True)
    engine = sqlite.create_engine(new, "create", timeout_s=5.0)
    try:
        upgrade(engine)
        engine.dispose()  # the last one to close it leaves no log
        new.replace(file)
    except BaseException:
        engine.dispose()
        for path in (new, *sqlite.log_files(new)):
            path.unlink(missing_ok=True)
        raise


def _place(file: Path) -> tuple[int, int] | None:
    """Which file lies there now; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """What goes wrong while a database is opened, said with its name."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot open the database {file}: {error}") from error
    except sa.exc.OperationalError as error:
        raise StartupError(
            f"cannot open the database {file}: {error.orig}; check who may use it, and the space "
            "on its disk"
        ) from error
    except sa.exc.DatabaseError as error:
        hint = "restore it from a backup"
        if sqlite.has_log(file):
            hint += f", or, {opening.foreign_log(file)}"
        raise StartupError(f"cannot open the database {file}: {error.orig}; {hint}") from error
