"""What a kind of database says of itself: where one lies, who uses it, how it keeps its promises.

The log of edits speaks SQLAlchemy and knows no kind. What differs is here: opening a connection
(isolation, durability), the lock of the one writer, and whether the right database is there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

WRITER = {"errata_writer": True}
"""Execution options of a connection that will write."""

Mode = Literal["write", "read"]

Stamp = tuple[int, ...]
"""Which file a database is, and when it was written to last."""


class Dialect(ABC):
    """One database of one kind. Nothing is opened before `engine`, `lock` or `exists` is called."""

    name: str
    """As messages name it; without a password."""
    anchor: Path
    """Where the file lies that says which store it is (`app/store/anchor.py`)."""
    checkpoint: Path | None = None
    """Where what is known of it is kept while no server has it open (`app/store/checkpoint.py`)."""
    commit_may_be_in_doubt: bool = False
    """Whether a commit can fail and have happened all the same: true across a network."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Held by the one server of this database. Raises `StartupError` naming who has it."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a database that something was ever written to. Nothing is created."""

    @abstractmethod
    def absence(self, *, expected: bool) -> str | None:
        """What is missing, in words; None where a database is there, or where a new one may begin.

        `expected`: there was one before. Raises `StartupError` where there can be none.
        """

    @abstractmethod
    def begin(self, make: Callable[[sa.Engine], None]) -> None:
        """A new database, made by `make`: whatever happens, none is there by half."""

    @abstractmethod
    def engine(self, mode: Mode, *, timeout_s: float) -> sa.Engine:
        """Connections that keep the promises. `timeout_s` bounds waiting for locks.

        A transaction with the options `WRITER` is the only one that writes; any other one reads a
        single consistent view.
        """

    @abstractmethod
    def place(self) -> Hashable:
        """Which database lies there now: another value, and it was moved, removed or replaced."""

    def stamp(self) -> Stamp | None:
        """Another value, and somebody wrote to it since. None where that cannot be told."""
        return None

    @abstractmethod
    def to_begin_anew(self) -> str:
        """The one command that leaves neither the database nor what remembers it."""

    def was_interrupted(self) -> bool:
        """Whether a server may have left it in a hurry, so that everything is to be checked."""
        return False

    def check(self, connection: sa.Connection) -> None:  # noqa: B027  (most kinds check themselves)
        """Of an interrupted database. Raises `StoreCorrupt` where its pages are damaged."""

    def log_of_another(self) -> str | None:
        """What to do where a log of another database may lie beside it; None where none can."""
        return None
