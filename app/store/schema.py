"""The schema of a database: which one it has, and the way to the newest.

Migrations only go forward. What an older release wrote is sealed in the transaction that migrates.
"""

from __future__ import annotations

import importlib.resources
import logging
from pathlib import Path

import alembic.command
import alembic.config
import alembic.script
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext

from app.errors import StartupError
from app.store import owner, tables
from app.store.dialects import sqlite
from app.store.sealing import seal_all

logger = logging.getLogger(__name__)


def bring_up_to_date(engine: sa.Engine, file: Path, *, migrate: bool, is_new: bool) -> None:
    """Raises `StartupError` when the schema is no known one, or an older one and may not change."""
    config = _alembic_config()
    scripts = alembic.script.ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == newest:
        with engine.begin() as connection:
            _require_tables(connection, file)
        return
    if present is None and not is_new:
        raise StartupError(
            f"{file} is no database of Errata: it says nothing of its schema. Check --data-dir and "
            "--database-url, or put the right file there"
        )
    if present is not None and present not in {s.revision for s in scripts.walk_revisions()}:
        raise StartupError(
            f"the database {file} has schema {present}, and this program knows up to "
            f"{newest}: it was written by a newer version of Errata; install that one"
        )
    if not migrate:
        raise StartupError(
            f"the database {file} has schema {present or 'none'}, and {newest} is needed: "
            "migrations are switched off (ERRATA_MIGRATE), or this command only reads; back it up, "
            "and start the server once with them"
        )
    with engine.connect() as connection:
        writer = connection.execution_options(**sqlite.WRITER)
        with writer.begin():
            config.attributes["connection"] = writer
            alembic.command.upgrade(config, "head")
            if not writer.scalar(sa.select(sa.func.count()).select_from(tables.store)):
                owner.begin(writer)
                seal_all(writer)
    logger.info("schema brought from %s to %s", present, newest)


def _require_tables(connection: sa.Connection, file: Path) -> None:
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    for name, table in tables.metadata.tables.items():
        missing = [f"table {name}"]
        if name in present:
            columns = {column["name"] for column in inspector.get_columns(name)}
            missing = [f"column {name}.{c.name}" for c in table.c if c.name not in columns]
        if missing:
            raise StartupError(
                f"the database {file} lacks its {missing[0]}; restore it from a backup"
            )


def _alembic_config() -> alembic.config.Config:
    folder = importlib.resources.files("migrations")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(str(folder))).replace("%", "%%"))
    return config
