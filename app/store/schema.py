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
from app.store.dialects import WRITER, Dialect
from app.store.sealing import seal_all

logger = logging.getLogger(__name__)


def is_older(connection: sa.Connection, place: Dialect, *, migrate: bool) -> bool:
    """Whether the schema is an older one, that may be brought up to date.

    Raises `StartupError` when it is no known one, or an older one that may not be changed.
    """
    scripts = alembic.script.ScriptDirectory.from_config(_alembic_config())
    newest = scripts.get_current_head()
    present = MigrationContext.configure(connection).get_current_revision()
    if present == newest:
        _require_tables(connection, place)
        return False
    if present is None:
        raise StartupError(
            f"{place.name} is no database of Errata: it says nothing of its schema. Check "
            "--data-dir and --database-url, or put the right file there"
        )
    if present not in {step.revision for step in scripts.walk_revisions()}:
        raise StartupError(
            f"the database {place.name} has schema {present}, and this program knows up to "
            f"{newest}: it was written by a newer version of Errata; install that one"
        )
    if not migrate:
        raise StartupError(
            f"the database {place.name} has schema {present}, and {newest} is needed: migrations "
            "are switched off (ERRATA_MIGRATE), or this command only reads; back it up, and start "
            "the server once with them"
        )
    return True


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to the newest, from nothing or from an older one. One transaction."""
    config = _alembic_config()
    with engine.connect() as connection:
        writer = connection.execution_options(**WRITER)
        with writer.begin():
            config.attributes["connection"] = writer
            alembic.command.upgrade(config, "head")
            if not writer.scalar(sa.select(sa.func.count()).select_from(tables.store)):
                owner.begin(writer)
                seal_all(writer)
    logger.info("the schema was brought up to date")


def _require_tables(connection: sa.Connection, place: Dialect) -> None:
    inspector = sa.inspect(connection)
    present = set(inspector.get_table_names())
    for name, table in tables.metadata.tables.items():
        missing = [f"table {name}"]
        if name in present:
            columns = {column["name"] for column in inspector.get_columns(name)}
            missing = [f"column {name}.{c.name}" for c in table.c if c.name not in columns]
        if missing:
            raise StartupError(
                f"the database {place.name} lacks its {missing[0]}; restore it from a backup"
            )


def _alembic_config() -> alembic.config.Config:
    folder = importlib.resources.files("migrations")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(str(folder))).replace("%", "%%"))
    return config
