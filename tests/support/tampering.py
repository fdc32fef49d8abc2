"""Alterations of a database, drawn from a seed: any column of any row, rows removed and copied."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

TABLES = (
    "events", "changes", "edits", "artifacts", "images", "idempotency", "edit_jobs", "head",
    "seals", "store",
)  # fmt: skip
_ROW = {"changes": "version * 1000000 + place"}
"""What a row is known by in tables that have no rowid."""
_VALUES = (None, "", "x", "7", 7, -1, 2**40, b"\xff\x00", "[]", "{}", '["a"]', "deadbeef" * 8)


@dataclass(frozen=True)
class Alteration:
    """What was done, in words, and the names by which a finding may tell of it."""

    what: str
    table: str
    names: tuple[str, ...]


def alter_at_random(database: Path, rng: random.Random) -> Alteration:
    """One alteration that changes something, made as somebody with a shell would."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in names.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        while True:
            with contextlib.suppress(sqlite3.IntegrityError):
                if (made := _attempt(connection, rng)) is not None:
                    return made


def _attempt(connection: sqlite3.Connection, rng: random.Random) -> Alteration | None:
    table = rng.choice(TABLES)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    name = _ROW.get(table, "rowid")
    rows = connection.execute(f"SELECT {name}, * FROM {table}").fetchall()
    if not rows:
        return None
    row = rng.choice(rows)
    column = rng.choice(columns)
    known = dict(zip(columns, row[1:], strict=True))
    names = _names(table, known)
    kind = rng.choice(("set", "set", "set", "set", "delete", "copy"))
    if kind == "delete":
        connection.execute(f"DELETE FROM {table} WHERE {name} = ?", row[:1])
        return Alteration(f"{table} {row[0]} deleted", table, names)
    if kind == "copy":
        return _copy(connection, table, columns, known, names)
    text = str(known[column])
    cut = rng.randrange(len(text) + 1)
    other = rng.choice(rows)[1 + columns.index(column)]
    value = rng.choice((*_VALUES, other, other, text[:cut] + "~" + text[cut + 1 :]))
    bad_text = rng.random() < 0.05
    expression = "CAST(x'ff41' AS TEXT)" if bad_text else "?"
    change = f"UPDATE {table} SET {column} = {expression} WHERE {name} = ? AND {column} IS NOT "
    done = connection.execute(change + expression, [row[0]] if bad_text else [value, row[0], value])
    if done.rowcount == 0:
        return None
    now = connection.execute(f"SELECT {column} FROM {table} WHERE {name} = ?", row[:1])
    if not bad_text and now.fetchone() == (known[column],):
        return None
    if table == "seals" and column == "version":  # it is one too many where it is now
        names += _names(table, {"version": value}) if isinstance(value, int) else ("seals of",)
    return Alteration(f"{table} {row[0]}.{column} = {value!r}", table, names)


def _names(table: str, row: dict[str, object]) -> tuple[str, ...]:
    version = row.get("version")
    match table:
        case "head" | "store":
            return ("the head is", "table store", "another one than was here")
        case "events" | "changes" | "seals":
            assert isinstance(version, int)
            gap = (f"event {version + 1} ", f"the last event is {version - 1}")
            return (f"event {version} ", f"version {version},", *gap)
        case "edit_jobs":
            return (str(row["id"]), "(table edit_jobs)")  # the id may be what was altered
    return tuple(str(row[name]) for name in ("id", "edit_id", "key", "digest") if name in row)


def _copy(
    connection: sqlite3.Connection,
    table: str,
    columns: list[str],
    known: dict[str, object],
    names: tuple[str, ...],
) -> Alteration | None:
    """The row again, under another name and, where versions are unique, beyond the head."""
    head = connection.execute("SELECT max(version) FROM events").fetchone()[0]
    new = dict(known)
    for column, value in (("id", "copied"), ("digest", "copied"), ("key", "copied")):
        if column in new and table not in ("artifacts", "events", "head", "store"):
            new[column] = value
    new["version"] = head + 1
    new = {name: new[name] for name in new if name in columns}
    if table in ("head", "store"):
        return None
    marks = ", ".join("?" for _ in columns)
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", [new[c] for c in columns])
    new["version"] = head + 1
    return Alteration(f"{table} copied", table, (*names, "copied", *_names("events", new)))
