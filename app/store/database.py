"""One database: opening it, its read and write transactions, and whether it is still ours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from app.errors import StartupError, StoreDamaged, StoreLost, StoreUnavailable
from app.store import opening, owner
from app.store.anchor import Anchor, read_anchor, write_anchor
from app.store.dialects import WRITER, Dialect, Stamp, dialect_of
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
        self,
        where: Dialect,
        engine: sa.Engine,
        *,
        on_done: OnDone = lambda _what, _s: None,
    ) -> None:
        self._on_done = on_done
        self.lost: StoreLost | None = None
        self.where = where
        self.opened_as: Stamp | None = None
        """What it was before this process wrote to it."""
        self._engine = engine
        self._place = where.place()
        self._owner: Owner | None = None

    @classmethod
    def open(
        cls,
        where: Dialect | sa.URL | str,
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
        where = _dialect(where)
        with _named(where):
            opening.require_present(where)
            stamp = where.stamp()
            if not where.exists():
                _begin(where, migrate=migrate)
            is_older = opening.examine(where, migrate=migrate)
            engine = where.engine("write", timeout_s=timeout_s)
            try:
                if is_older:
                    upgrade(engine)
                database = cls(where, engine, on_done=on_done)
                database.opened_as = stamp
                database._take_over()
            except BaseException:
                engine.dispose()
                raise
        return database

    @classmethod
    def open_to_read(cls, where: Dialect | sa.URL | str, *, timeout_s: float = 5.0) -> Database:
        """As it is: nothing is written, no lock is taken, and a server may be using it.

        Raises what `open` raises.
        """
        where = _dialect(where)
        with _named(where):
            opening.require_present(where)
            if not where.exists():
                raise StartupError(f"there is no database at {where.name}; check --data-dir")
            opening.examine(where, migrate=False)
        return cls(where, where.engine("read", timeout_s=timeout_s))

    def _take_over(self) -> None:
        anchor = read_anchor(self.where.anchor)
        with self._engine.connect() as connection:
            writer = connection.execution_options(**WRITER)
            with writer.begin():
                opening.require_same_store(writer, self.where, anchor)
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
            writer = connection.execution_options(**WRITER)
            transaction = writer.begin()
            try:
                self._check_ours(writer)
                yield writer
            except BaseException:
                transaction.rollback()
                raise
            self._commit(transaction)

    def require_ours(self) -> None:
        """Raises `StoreLost` when another server has taken over, or the file is gone."""
        with self._available(), self._engine.begin() as connection:
            self._check_ours(connection)

    def committed(self, version: int, seal: str | None) -> None:
        """Remember outside of the database that it came as far as `version`."""
        if self._owner is not None:
            write_anchor(self.where.anchor, Anchor(self._owner.store_id, version, seal))

    def close(self) -> None:
        self._engine.dispose()

    def _commit(self, transaction: sa.Transaction) -> None:
        try:
            transaction.commit()
        except _BUSY as error:
            if self.where.commit_may_be_in_doubt:
                raise self._gone(
                    "The connection broke during a commit, and nobody can tell whether it was "
                    "written.",
                    hint="Start the server again: what was written is there then. Look for the "
                    "edit before you repeat it, or repeat it with its Idempotency-Key.",
                ) from error
            raise

    def _check_ours(self, connection: sa.Connection) -> None:
        if self.lost is not None:
            raise StoreLost(str(self.lost), hint=self.lost.hint, retry_after_s=30)
        if self.where.place() != self._place:
            raise self._gone("The file of the database was moved, removed or replaced.")
        if self._owner is not None:
            try:
                owner.require(connection, self._owner)
            except StoreLost as error:
                raise self._gone(str(error)) from error

    def _gone(self, why: str, *, hint: str | None = None) -> StoreLost:
        """For good: nothing more is written by this server."""
        logger.error("the database %s is lost to this server: %s", self.where.name, why)
        self.lost = StoreLost(why, hint=hint, retry_after_s=30)
        return self.lost

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


def _dialect(where: Dialect | sa.URL | str) -> Dialect:
    return where if isinstance(where, Dialect) else dialect_of(sa.make_url(where))


def _begin(where: Dialect, *, migrate: bool) -> None:
    if not migrate:
        raise StartupError(
            f"the database {where.name} has no schema, and migrations are switched off "
            "(ERRATA_MIGRATE)"
        )
    where.begin(upgrade)


@contextmanager
def _named(where: Dialect) -> Iterator[None]:
    """What goes wrong while a database is opened, said with its name."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"cannot open the database {where.name}: {error}") from error
    except sa.exc.OperationalError as error:
        raise StartupError(
            f"cannot open the database {where.name}: {error.orig}; check who may use it, and the "
            "space on its disk"
        ) from error
    except sa.exc.DatabaseError as error:
        hint = "restore it from a backup"
        if other := where.log_of_another():
            hint += f", or, {other}"
        raise StartupError(
            f"cannot open the database {where.name}: {error.orig}; {hint}"
        ) from error
