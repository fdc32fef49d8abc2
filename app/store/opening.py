"""Is the right database there? Checked before anything is written, and named if it is not.

A database that is missing, empty, somebody else's or older than it was is never begun anew on the
way: the message says which it is, and the one command that does begin anew.
"""

from __future__ import annotations

import shlex

import sqlalchemy as sa

from app.errors import StartupError, StoreCorrupt
from app.store import owner, seals, tables
from app.store.anchor import Anchor, read_anchor
from app.store.audit import audit
from app.store.dialects import Dialect
from app.store.schema import is_older


def require_present(place: Dialect) -> None:
    """Raises `StartupError` when the database is missing or empty where there was one."""
    anchor = read_anchor(place.anchor)
    what = place.absence(expected=anchor is not None)
    if what is None:
        return
    known = f", and version {anchor.version} of one was committed here" if anchor else ""
    raise StartupError(
        f"{what}{known}; put it back, or check --data-dir. To begin anew, without any edit: "
        f"{place.to_begin_anew()}"
    )


def examine(place: Dialect, *, migrate: bool) -> bool:
    """Whether the schema is to be brought up to date.

    Only reads: opened to be written, a database may take over what lies beside it, for good. One
    that was left in a hurry is checked whole. Raises `StartupError` when it is no database of
    this program, or not the one that was here.
    """
    # Before the database, which it is never ahead of.
    was_interrupted, anchor = place.was_interrupted(), read_anchor(place.anchor)
    engine = place.engine("read", timeout_s=5.0)
    try:
        with engine.begin() as connection:
            if was_interrupted:
                place.check(connection)
            if is_older(connection, place, migrate=migrate):
                if sa.inspect(connection).has_table(tables.store.name):
                    require_same_store(connection, place, anchor)
                elif anchor is not None:  # they came together
                    raise _another(place)
                return True
            require_same_store(connection, place, anchor)
            if was_interrupted:
                audit(connection, thorough=False)
        return False
    except StoreCorrupt as error:
        if was_interrupted and (hint := place.log_of_another()):
            raise StoreCorrupt(f"{error}; {hint}") from error
        raise
    finally:
        engine.dispose()


def require_same_store(connection: sa.Connection, place: Dialect, anchor: Anchor | None) -> None:
    """Raises `StartupError` when the anchor, read before, does not lead to this database."""
    store_id = owner.read(connection).store_id
    head = connection.scalar(sa.select(tables.head.c.version))
    if anchor is None:
        return
    if store_id != anchor.store_id:
        raise _another(place)
    keep = _keep(place)
    if not isinstance(head, int) or head < anchor.version:
        raise StoreCorrupt(
            f"the head is {head}, and version {anchor.version} was committed to the database "
            f"{place.name}: it is older than it was, or its newest edits were removed with its "
            f"-wal file or by hand; put the newest one back, or, {keep}"
        )
    if seals.event_seal(connection, anchor.version) != anchor.seal:
        raise StoreCorrupt(
            f"event {anchor.version} of the database {place.name} is not the one that was "
            f"committed; restore a backup, or, {keep}"
        )


def _another(place: Dialect) -> StartupError:
    return StartupError(
        f"the database {place.name} is another one than was here; put the right one back, or, "
        f"{_keep(place)}"
    )


def _keep(place: Dialect) -> str:
    return f"to go on with this one all the same: {shlex.join(['rm', str(place.anchor)])}"
