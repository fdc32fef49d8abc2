"""The expert memory: which edits are active, as immutable snapshots that generations pin.

A snapshot never changes, so any number of threads may read it. `evolve` makes the next one and
shares with it what it can. Image keys lie in *segments*, indexes that are filled once and never
touched again; an edit that is no longer active stays in its segment and is masked (a tombstone)
until half of what is stored is masked, and everything is compacted into one segment. Segments grow
like a binary counter, so n edits made one at a time lie in at most log2(n) + 1 of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex
from editing_core.registry import INDEXES
from editing_core.types import EditArtifact, EditRequest

_INDEX = "faiss_flat"


@dataclass(frozen=True, slots=True, eq=False)
class MemoryEntry:
    """One active edit, with what routing, verification and explanation need of it.

    `rephrases` and `not_for` are its scope, as `EditRequest` has them; `target` is its answer.
    """

    edit_id: str
    artifact: EditArtifact
    image_digest: str
    prompt: str
    target: str = ""
    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every way in which its question is known, the prompt first."""
        return (self.prompt, *self.rephrases)

    @classmethod
    def of(
        cls, edit_id: str, artifact: EditArtifact, request: EditRequest, *, image_digest: str
    ) -> Self:
        """The entry of an edit made of `request`."""
        return cls(
            edit_id,
            artifact,
            image_digest,
            request.prompt,
            target=request.target,
            rephrases=request.rephrases,
            not_for=request.not_for,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """One filled index and the entries it was filled with, by id."""

    index: VectorIndex
    entries: Mapping[str, MemoryEntry]

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotChange:
    """What makes another snapshot of one. An edit under other keys is removed, and added anew."""

    version: int
    added: tuple[MemoryEntry, ...]
    removed: tuple[str, ...]


class Snapshot:
    """The active edits as of one version. Build with `empty`, `evolve` and `changed` only."""

    def __init__(
        self,
        *,
        version: int,
        dim: int,
        entries: Mapping[str, MemoryEntry],
        segments: tuple[_Segment, ...],
    ) -> None:
        self._version = version
        self._dim = dim
        self._entries = MappingProxyType(dict(entries))
        self._segments = segments
        self._origin: tuple[weakref.ref[Snapshot], SnapshotChange] | None = None

    @classmethod
    def empty(cls, dim: int, *, version: int = 0) -> Snapshot:
        """No edits; `dim` is the length of an image key."""
        return cls(version=version, dim=dim, entries={}, segments=())

    def __reduce__(self) -> tuple[Callable[..., Snapshot], tuple[object, ...]]:
        """Pickled without its indexes, which are filled anew."""
        return _rebuilt, (self._version, self._dim, tuple(self._entries.values()))

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
        """Active edits by id, in the order in which they became active."""
        return self._entries

    @property
    def num_segments(self) -> int:
        """How many indexes a search visits."""
        return len(self._segments)

    def __len__(self) -> int:
        return len(self._entries)

    def image_candidates(
        self, image_key: NDArray[np.float32], tau: float
    ) -> list[tuple[str, float]]:
        """Every active edit whose image key has cosine >= `tau` with `image_key` `[dim]`.

        Nearest first, equals by id: the result depends on the active edits alone, not on the
        order or the segments in which they came.
        """
        found = [
            (edit_id, cosine)
            for segment in self._segments
            for edit_id, cosine in segment.index.range_search(image_key, tau)
            if self._entries.get(edit_id) is segment.entries[edit_id]
        ]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

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
        """What makes this one of `base`, at once where it was made of that."""
        if self._origin is not None and self._origin[0]() is base:
            return self._origin[1]
        return SnapshotChange(
            self._version,
            tuple(e for e in self._entries.values() if base.entries.get(e.edit_id) is not e),
            tuple(i for i, e in base.entries.items() if self._entries.get(i) is not e),
        )

    def changed(self, change: SnapshotChange) -> Snapshot:
        """What `change` makes of this one, whichever its version. Raises as `evolve` does."""
        activate = change.added
        entries = dict(self._entries)
        for edit_id in change.removed:
            if entries.pop(edit_id, None) is None:
                raise ValueError(f"edit {edit_id} is not active")
        for entry in activate:
            if entry.edit_id in entries:
                raise ValueError(f"edit {entry.edit_id} is already active")
            entries[entry.edit_id] = entry
        segments = self._segments
        # A reinstated edit may still lie, masked until now, in the segment it was in before.
        fresh = [e for e in activate if not any(s.entries.get(e.edit_id) is e for s in segments)]
        if fresh:
            segments = (*segments, _segment(self._dim, fresh))
        made = Snapshot(
            version=change.version,
            dim=self._dim,
            entries=entries,
            segments=_compacted(self._dim, segments, entries),
        )
        made._origin = (weakref.ref(self), change)
        return made


def _rebuilt(version: int, dim: int, entries: Sequence[MemoryEntry]) -> Snapshot:
    segments = (_segment(dim, entries),) if entries else ()
    by_id = {entry.edit_id: entry for entry in entries}
    return Snapshot(version=version, dim=dim, entries=by_id, segments=segments)


def _segment(dim: int, entries: Sequence[MemoryEntry]) -> _Segment:
    index: VectorIndex = INDEXES.resolve(_INDEX)(dim)
    keys = np.stack([entry.artifact.key.image for entry in entries])
    index.add([entry.edit_id for entry in entries], keys)
    return _Segment(index, {entry.edit_id: entry for entry in entries})


def _compacted(
    dim: int, segments: tuple[_Segment, ...], active: Mapping[str, MemoryEntry]
) -> tuple[_Segment, ...]:
    """Merge segments of like size, and all of them once half of what they hold is masked."""
    if sum(map(len, segments)) > 2 * len(active):
        return (_segment(dim, list(active.values())),) if active else ()
    merged = list(segments)
    while len(merged) > 1 and len(merged[-2]) < 2 * len(merged[-1]):
        last, before = merged.pop(), merged.pop()
        alive = [
            entry
            for segment in (before, last)
            for entry in segment.entries.values()
            if active.get(entry.edit_id) is entry
        ]
        if alive:
            merged.append(_segment(dim, alive))
    return tuple(merged)
