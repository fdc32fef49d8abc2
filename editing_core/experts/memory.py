"""The expert memory: which edits are active, as immutable snapshots that generations pin.

A snapshot never changes, so any number of threads may read it. `evolve` makes the next one and
shares with it all but what changed: a snapshot is a few *segments* (`experts/segments.py`), each
with a mask. An edit that is no longer active stays in its segment and is masked (a tombstone) until
half of what is stored is masked, and everything is compacted into one segment. Segments grow
like a binary counter, so n edits made one at a time lie in at most log2(n) + 1 of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editing_core.experts.segments import MemoryEntry, Name, Segment, Source, merged

__all__ = ["MemoryEntry", "Name", "Part", "Segment", "Snapshot", "SnapshotChange", "Source"]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A segment as one snapshot has it: `alive` bool `[rows]`, None where all of them are."""

    segment: Segment
    alive: NDArray[np.bool_] | None = None
    count: int = -1
    """How many are alive; -1 is counted."""

    def __post_init__(self) -> None:
        if self.count < 0:
            count = len(self.segment) if self.alive is None else int(self.alive.sum())
            object.__setattr__(self, "count", count)

    def row(self, edit_id: str) -> int | None:
        """Where an edit that is active lies."""
        row = self.segment.row(edit_id)
        return None if row is None or not self.is_alive(row) else row

    def is_alive(self, row: int) -> bool:
        return self.alive is None or bool(self.alive[row])

    def rows(self) -> NDArray[np.intp]:
        """Those that are alive."""
        return np.arange(len(self.segment)) if self.alive is None else np.flatnonzero(self.alive)


class _Entries(Mapping[str, MemoryEntry]):
    """Active edits by id. One that its source finds unfit is not there."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __getitem__(self, edit_id: str) -> MemoryEntry:
        part, row = self.place(edit_id)
        (entry,) = part.segment.entries([row])
        if entry is None:
            raise KeyError(edit_id)
        return entry

    def __contains__(self, edit_id: object) -> bool:
        return isinstance(edit_id, str) and any(
            part.row(edit_id) is not None for part in reversed(self._parts)
        )

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            for row in part.rows().tolist():
                yield part.segment.ids[row]

    def __len__(self) -> int:
        return sum(part.count for part in self._parts)

    def name(self, edit_id: str) -> Name:
        part, row = self.place(edit_id)
        return part.segment.name(row)

    def all(self) -> list[MemoryEntry]:
        """Fetched together, which is sooner than one by one."""
        return [
            entry
            for part in self._parts
            for entry in part.segment.entries(part.rows().tolist())
            if entry is not None
        ]

    def place(self, edit_id: str) -> tuple[Part, int]:
        """Where an active edit lies. Raises `KeyError`."""
        for part in reversed(self._parts):
            if (row := part.row(edit_id)) is not None:
                return part, row
        raise KeyError(edit_id)


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotChange:
    """What makes another snapshot of one. An edit under other keys is removed, and added anew."""

    version: int
    added: tuple[MemoryEntry, ...]
    removed: tuple[str, ...]


class Snapshot:
    """The active edits as of one version. Build with `empty`, `of`, `evolve` and `changed` only."""

    def __init__(
        self, *, version: int, dim: int, parts: tuple[Part, ...], source: Source | None
    ) -> None:
        self._version = version
        self._dim = dim
        self._parts = parts
        self._source = source
        self._entries = _Entries(parts)
        self._origin: tuple[weakref.ref[Snapshot], SnapshotChange] | None = None

    @classmethod
    def empty(cls, dim: int, *, version: int = 0, source: Source | None = None) -> Snapshot:
        """No edits; `dim` is the length of an image key.

        With a `source`, edits that have a revision are not held for ever, but fetched from there.
        """
        return cls(version=version, dim=dim, parts=(), source=source)

    def of(self, version: int, parts: Sequence[Part]) -> Snapshot:
        """Another version, made of these parts; no edit is alive in two of them."""
        alive = tuple(part for part in parts if part.count)
        return Snapshot(version=version, dim=self._dim, parts=alive, source=self._source)

    def with_more(self, entries: Sequence[MemoryEntry]) -> Snapshot:
        """The same version with further edits, none of which is active."""
        return self.of(self._version, [*self._parts, Part(Segment.of(entries, self._dim))])

    def __reduce__(self) -> tuple[Callable[..., Snapshot], tuple[object, ...]]:
        """Pickled with all its entries and without its indexes, which are filled anew."""
        return _rebuilt, (self._version, self._dim, tuple(self._entries.all()))

    @property
    def version(self) -> int:
        """The last event applied."""
        return self._version

    @property
    def dim(self) -> int:
        """Length of an image key."""
        return self._dim

    @property
    def entries(self) -> Mapping[str, MemoryEntry]:
        """Active edits by id, in the order in which they became active first."""
        return self._entries

    @property
    def num_segments(self) -> int:
        """How many indexes a search visits."""
        return len(self._parts)

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, edit_id: str) -> Name:
        """Id and revision of an active edit, without fetching it. Raises `KeyError`."""
        return self._entries.name(edit_id)

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        """Every active edit whose image key has cosine >= `tau` with `image_key` `[dim]`.

        Nearest first, equals by id: the result depends on the active edits alone, not on the
        order or the segments in which they came. Those that are not held are fetched together,
        and one that its source finds unfit is left out.
        """
        found: list[tuple[str, float]] = []
        for part in self._parts:
            segment = part.segment
            hits = [
                (row, hit)
                for hit in segment.index.range_search(image_key, tau)
                if (row := part.row(hit[0])) is not None
            ]
            entries = segment.entries([row for row, _ in hits]) if hits else []
            found += [
                hit for (_, hit), entry in zip(hits, entries, strict=True) if entry is not None
            ]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def names_near(self, image_key: NDArray[np.float32], tau: float) -> list[Name]:
        """The same edits by name, in no special order; nothing is fetched."""
        return [
            part.segment.name(row)
            for part in self._parts
            for edit_id, _ in part.segment.index.range_search(image_key, tau)
            if (row := part.row(edit_id)) is not None
        ]

    def evolve(
        self,
        version: int,
        *,
        activate: Sequence[MemoryEntry] = (),
        deactivate: Sequence[str] = (),
    ) -> Snapshot:
        """The snapshot of a later `version`; this one stays as it is.

        Deactivation comes first. Raises `ValueError` when the version does not grow, an edit to
        deactivate is not active, or one to activate already is or has a key of another length.
        """
        if version <= self._version:
            raise ValueError(f"version {version} does not follow {self._version}")
        return self.changed(SnapshotChange(version, tuple(activate), tuple(deactivate)))

    @property
    def base(self) -> Snapshot | None:
        """What it was made of, as long as somebody else holds that."""
        return None if self._origin is None else self._origin[0]()

    def since(self, base: Snapshot) -> SnapshotChange:
        """What makes this one of `base`, at once where it was made of that.

        Edits that are in the change are fetched, and no others; one that is unfit is left out.
        """
        if self._origin is not None and self._origin[0]() is base:
            return self._origin[1]
        mine, theirs = self._beside(base), base._beside(self)
        added = [edit_id for edit_id, state in mine.items() if theirs.get(edit_id) != state]
        removed = [edit_id for edit_id, state in theirs.items() if mine.get(edit_id) != state]
        return SnapshotChange(self._version, tuple(self._fetched(added)), tuple(removed))

    def _beside(self, other: Snapshot) -> dict[str, Name]:
        """Which state each edit is in, without the parts that `other` has too."""
        shared = {id(part) for part in other._parts}
        return {
            part.segment.ids[row]: part.segment.state(row)
            for part in self._parts
            if id(part) not in shared
            for row in part.rows().tolist()
        }

    def _fetched(self, edit_ids: Sequence[str]) -> list[MemoryEntry]:
        by_part: dict[int, tuple[Part, list[int]]] = {}
        for edit_id in edit_ids:
            part, row = self._entries.place(edit_id)
            by_part.setdefault(id(part), (part, []))[1].append(row)
        return [
            entry
            for part, rows in by_part.values()
            for entry in part.segment.entries(rows)
            if entry is not None
        ]

    def changed(self, change: SnapshotChange) -> Snapshot:
        """What `change` makes of this one, whichever its version. Raises as `evolve` does."""
        parts = [_Draft(part) for part in self._parts]
        for edit_id in change.removed:
            if not any(part.switch(edit_id, alive=False) for part in reversed(parts)):
                raise ValueError(f"edit {edit_id} is not active")
        fresh: dict[str, MemoryEntry] = {}
        for entry in change.added:
            edit_id = entry.edit_id
            if edit_id in fresh or any(part.has(edit_id) for part in parts):
                raise ValueError(f"edit {edit_id} is already active")
            # A reinstated edit may still lie, masked until now, in the segment it was in before.
            if not any(part.revive(entry) for part in reversed(parts)):
                fresh[edit_id] = entry
        made = [part.done() for part in parts]
        if fresh:
            made.append(Part(Segment.of(list(fresh.values()), self._dim)))
        after = self.of(change.version, _compacted(made, self._dim, self._source))
        after._origin = (weakref.ref(self), change)
        return after


class _Draft:
    """A part that is being changed; its mask is copied once, when that begins."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._segment = part.segment
        self._alive = part.alive
        self._count = part.count

    def has(self, edit_id: str) -> bool:
        row = self._segment.row(edit_id)
        return row is not None and (self._alive is None or bool(self._alive[row]))

    def switch(self, edit_id: str, *, alive: bool) -> bool:
        """Whether the edit is here, and was not so before."""
        row = self._segment.row(edit_id)
        if row is None or self.has(edit_id) == alive:
            return False
        mask = self._alive
        if mask is None or mask is self._part.alive:
            mask = np.ones(len(self._segment), bool) if mask is None else mask.copy()
            self._alive = mask
        mask[row] = alive
        self._count += 1 if alive else -1
        return True

    def revive(self, entry: MemoryEntry) -> bool:
        """Whether this very state of the edit lay here, masked."""
        row = self._segment.row(entry.edit_id)
        return (
            row is not None
            and self._segment.holds(entry, row)
            and self.switch(entry.edit_id, alive=True)
        )

    def done(self) -> Part:
        if self._alive is self._part.alive:
            return self._part
        return Part(self._segment, self._alive, self._count)


def _compacted(parts: Sequence[Part], dim: int, source: Source | None) -> Sequence[Part]:
    """Merge segments of like size, and all of them once half of what they hold is masked."""
    total, alive = sum(len(part.segment) for part in parts), sum(part.count for part in parts)
    if total > 2 * alive:
        return _merged(parts, dim, source)
    kept = list(parts)
    while len(kept) > 1 and len(kept[-2].segment) < 2 * len(kept[-1].segment):
        together = _merged(kept[-2:], dim, source)
        if len(together) > 1:
            break
        kept[-2:] = together
    return kept


def _merged(parts: Sequence[Part], dim: int, source: Source | None) -> list[Part]:
    alive = [(part.segment, part.rows()) for part in parts if part.count]
    return [Part(segment) for segment in merged(alive, dim, source)]


def _rebuilt(version: int, dim: int, entries: Sequence[MemoryEntry]) -> Snapshot:
    parts = (Part(Segment.of(entries, dim)),) if entries else ()
    return Snapshot(version=version, dim=dim, parts=parts, source=None)
