"""Is the right database there? Checked before anything is written, and named if it is not.

A database that is missing, empty, somebody else's or older than it was is never begun anew on the
way: the message says which it is, and the one command that does begin anew.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import sqlalchemy as sa

from app.errors import StartupError, StoreCorrupt
from app.store import owner, seals, tables
from app.store.anchor import Anchor, anchor_file, read_anchor
from app.store.audit import audit
from app.store.dialects import sqlite
from app.store.schema import is_older


def require_file(file: Path) -> None:
    """Raises `StartupError` when `file` is missing or empty where there was a database."""
    anchor = read_anchor(file)
    if not file.exists():
        if anchor is None and not sqlite.has_log(file):
            return
        what = f"there is no database at {file}"
    elif not file.is_file():
        raise StartupError(f"{file} is no file, so it is no database")
    elif file.stat().st_size == 0:
        what = f"the database {file} is empty (0 bytes)"
    else:
        return
    known = f", and version {anchor.version} of one was committed here" if anchor else ""
    raise StartupError(f"{what}{known}; {_or_anew(file)}")


def examine(file: Path, *, migrate: bool) -> bool:
    """Whether the schema is to be brought up to date.

    Only reads: opened to be written, a database takes over what its log holds, for good. Where
    there is a log, a server was killed, or a backup was put beside it, so everything is checked.
    Raises `StartupError` when it is no database of this program, or not the one that was here.
    """
    has_log, anchor = sqlite.has_log(file), read_anchor(file)  # before the database: never ahead
    engine = sqlite.create_engine(file, "read", timeout_s=5.0)
    try:
        with engine.begin() as connection:
            if has_log:
                told = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
                if told != "ok":
                    raise StoreCorrupt(f"the database {file} is damaged: {told}")
            if is_older(connection, file, migrate=migrate):
                if sa.inspect(connection).has_table(tables.store.name):
                    require_same_store(connection, file, anchor)
                elif anchor is not None:  # they came together
                    raise _another(file)
                return True
            require_same_store(connection, file, anchor)
            if has_log:
                audit(connection, thorough=False)
        return False
    except StoreCorrupt as error:
        if has_log:
            raise StoreCorrupt(f"{error}; {foreign_log(file)}") from error
        raise
    finally:
        engine.dispose()


def foreign_log(file: Path) -> str:
    """What to do where a backup was put back beside the log of another."""
    remove = shlex.join(["rm", "-f", *map(str, sqlite.log_files(file))])
    return (
        "if it was put back from a backup, the log of the one before is still beside it; with the "
        f"server stopped: {remove}"
    )


def require_same_store(connection: sa.Connection, file: Path, anchor: Anchor | None) -> None:
    """Raises `StartupError` when the anchor, read before, does not lead to this database."""
    store_id = owner.read(connection).store_id
    head = connection.scalar(sa.select(tables.head.c.version))
    if anchor is None:
        return
    if store_id != anchor.store_id:
        raise _another(file)
    keep = _keep(file)
    if not isinstance(head, int) or head < anchor.version:
        raise StoreCorrupt(
            f"the head is {head}, and version {anchor.version} was committed to the database "
            f"{file}: it is older than it was, or its newest edits were removed with its -wal file "
            f"or by hand; put the newest one back, or, {keep}"
        )
    if seals.event_seal(connection, anchor.version) != anchor.seal:
        raise StoreCorrupt(
            f"event {anchor.version} of the database {file} is not the one that was committed; "
            f"restore a backup, or, {keep}"
        )


def _another(file: Path) -> StartupError:
    return StartupError(
        f"the database {file} is another one than was here; put the right one back, or, "
        f"{_keep(file)}"
    )


def _keep(file: Path) -> str:
    return f"to go on with this one all the same: {shlex.join(['rm', str(anchor_file(file))])}"


def _or_anew(file: Path) -> str:
    everything = [file, *sqlite.log_files(file), anchor_file(file)]
    command = shlex.join(["rm", "-f", *map(str, everything)])
    return f"put it back, or check --data-dir. To begin anew, without any edit: {command}"
