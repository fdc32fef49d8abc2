"""Kinds of databases: one file each, chosen by the name in the database's URL."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import sqlalchemy as sa

from app.errors import StartupError
from app.store.dialects.base import WRITER, Dialect, Mode, Stamp

__all__ = ["WRITER", "Dialect", "Mode", "Stamp", "dialect_of"]

_KINDS = {"sqlite": "Sqlite", "postgresql": "Postgresql"}
"""By the name of SQLAlchemy's backend, which is the module's too: the class in it."""


def dialect_of(url: sa.URL, *, data_dir: Path | None = None) -> Dialect:
    """Of the database at `url`.

    `data_dir` is where a database that is no file is remembered. Raises `StartupError` where the
    kind is unknown, or its driver not installed.
    """
    kind = url.get_backend_name()
    if kind not in _KINDS:
        raise StartupError(
            f"database_url: {kind} is no kind of database that can be used; give "
            "sqlite:///path/to/errata.db, or postgresql://user@host/database"
        )
    made: Dialect = getattr(import_module(f"{__name__}.{kind}"), _KINDS[kind])(url, data_dir)
    return made
