"""One database: opening it, its schema, its read and write transactions."""

from __future__ import annotations

import importlib.resources
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from app.errors import StartupError, StoreUnavailable
from app.store.dialects import sqlite

logger = logging.getLogger(__name__)

OnDone = Callable[[str, float], None]


class Database:
    """Transactions on one database. Blocking: call it from a worker thread."""

    def __init__(
        self, url: sa.URL, *, timeout_s: float = 5.0, on_done: OnDone = lambda _what, _s: None
    ) -> None:
        self._on_done = on_done
        self.file = sqlite.database_file(url)
        self._engine = sqlite.create_engine(url, timeout_s=timeout_s)

    @classmethod
    def open(
        cls,
        url: sa.URL | str,
        *,
        migrate: bool = True,
        timeout_s: float = 5.0,
        on_done: OnDone = lambda _what, _s: None,
    ) -> Database:
        """A database whose schema is the one this program knows.

        `on_done` is called after each transaction, on its thread, with `read` or `write` and the
        seconds that it took.

        Raises `StartupError` when it cannot be opened, when its schema is newer, or when it is
        older and `migrate` is false.
        """
        database = cls(sa.make_url(url), timeout_s=timeout_s, on_done=on_done)
        try:
            database.file.parent.mkdir(parents=True, exist_ok=True)
            database._bring_up_to_date(migrate=migrate)
        except (OSError, sa.exc.DBAPIError) as error:
            cause = getattr(error, "orig", error)
            raise StartupError(f"cannot open the database {database.file}: {cause}") from error
        return database

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One consistent view. Raises `StoreUnavailable` when the database does not answer."""
        with self._timed("read"), self._available(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction, committed when the block ends, rolled back when it raises.

        Raises `StoreUnavailable` when the database does not answer or cannot be written.
        """
        with self._timed("write"), self._available(), self._engine.connect() as connection:
            writer = connection.execution_options(**sqlite.WRITER)
            with writer.begin():
                yield writer

    def close(self) -> None:
        self._engine.dispose()

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
        except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InternalError) as error:
            logger.exception("the database does not answer")
            raise StoreUnavailable("The database does not answer.", retry_after_s=1) from error

    def _bring_up_to_date(self, *, migrate: bool) -> None:
        config = _alembic_config()
        scripts = alembic.script.ScriptDirectory.from_config(config)
        newest = scripts.get_current_head()
        with self._engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
        if present == newest:
            return
        if present is not None and present not in {
            step.revision for step in scripts.walk_revisions()
        }:
            raise StartupError(
                f"the database {self.file} has schema {present}, and this program knows up to "
                f"{newest}: it was written by a newer version of Errata; install that one"
            )
        if not migrate:
            raise StartupError(
                f"the database {self.file} has schema {present or 'none'}, {newest} is needed, and "
                "migrations are switched off (ERRATA_MIGRATE)"
            )
        with self._engine.connect() as connection:
            writer = connection.execution_options(**sqlite.WRITER)
            with writer.begin():
                config.attributes["connection"] = writer
                alembic.command.upgrade(config, "head")
        logger.info("schema brought from %s to %s", present, newest)


def _alembic_config() -> alembic.config.Config:
    folder = importlib.resources.files("migrations")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(str(folder))).replace("%", "%%"))
    return config
