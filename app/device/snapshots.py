"""Snapshots on both sides of the wire: here they are numbered, there they are kept.

What travels is what makes one of another that is there already, so that an edit costs its own
bytes. The engine keeps a snapshot for as long as the server holds it: the newest one, those that
questions are pinned to, and those in which edits are tried.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from editing_core.experts.memory import MemoryEntry, Snapshot, SnapshotChange

_ENTRIES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Gather:
    """Some of the edits that snapshot `number` adds; more of them than one frame should hold."""

    number: int
    added: tuple[MemoryEntry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Define:
    """Snapshot `number` is `base` (None: one without edits) with what was gathered for it."""

    number: int
    base: int | None
    dim: int
    version: int
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing will name snapshot `number` any more."""

    number: int


Definition = Gather | Define


class NumberedSnapshots:
    """The server's side of one wire. Belongs to the thread that sends.

    `forget` is called on any thread, with a `Forget` for whoever sends, and must not block: the
    collector of garbage calls it.
    """

    def __init__(self, forget: Callable[[Forget], None]) -> None:
        self._forget = forget
        self._next = itertools.count(1)
        self._numbers: WeakKeyDictionary[Snapshot, int] = WeakKeyDictionary()
        self._new: list[Snapshot] = []
        self.newest: Snapshot | None = None
        """What was published last, from which none that is asked for differs by much."""

    def number(self, snapshot: Snapshot) -> int:
        """Its number. One that is new is to be defined before the number is sent."""
        number = self._numbers.get(snapshot)
        if number is None:
            number = self._numbers[snapshot] = next(self._next)
            self._new.append(snapshot)
            weakref.finalize(snapshot, self._forget, Forget(number)).atexit = False
        return number

    def definitions(self) -> Iterator[Definition]:
        """Of all that were numbered since, in order."""
        new, self._new = self._new, []
        for snapshot in new:
            yield from self._definition(snapshot)

    def _definition(self, snapshot: Snapshot) -> Iterator[Definition]:
        number = self._numbers[snapshot]
        base = self._base(snapshot, number)
        change = snapshot.since(base or Snapshot.empty(snapshot.dim))
        for first in range(0, len(change.added), _ENTRIES_AT_ONCE):
            yield Gather(number, change.added[first : first + _ENTRIES_AT_ONCE])
        known = None if base is None else self._numbers[base]
        yield Define(number, known, snapshot.dim, snapshot.version, change.removed)

    def _base(self, snapshot: Snapshot, number: int) -> Snapshot | None:
        """What it was made of, if that is known there; else the newest one."""
        for base in (snapshot.base, self.newest):
            if base is not None and self._numbers.get(base, number) < number:
                return base
        return None


class KeptSnapshots:
    """The engine's side. Belongs to the thread that receives."""

    def __init__(self) -> None:
        self._kept: dict[int, Snapshot] = {}
        self._gathered: dict[int, list[MemoryEntry]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, number: int) -> Snapshot:
        return self._kept[number]

    def take(self, said: Definition | Forget) -> None:
        match said:
            case Gather():
                self._gathered.setdefault(said.number, []).extend(said.added)
            case Define():
                added = tuple(self._gathered.pop(said.number, ()))
                base = Snapshot.empty(said.dim) if said.base is None else self._kept[said.base]
                change = SnapshotChange(said.version, added, said.removed)
                self._kept[said.number] = base.changed(change)
            case Forget():
                self._kept.pop(said.number, None)
