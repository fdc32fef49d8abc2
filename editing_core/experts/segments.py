"""Segments of the expert memory: edits row by row, with one index over their image keys.

A segment is filled once and never touched again, so snapshots share it. Its edits are *held*, or
named only and fetched from a source when they are needed: then a row costs its key and its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex
from editing_core.registry import INDEXES
from editing_core.types import EditArtifact, EditRequest

_INDEX = "product"

_MANY = 64

Name = tuple[str, int]
"""An edit's id and revision."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryEntry:
    """One active edit, with what routing, verification and explanation need of it.

    `rephrases` and `not_for` are its scope, as `EditRequest` has them; `target` is its answer.
    `revision` tells this state of the edit from others that it had: the version that brought it, 0
    where it came with none.
    """

    edit_id: str
    artifact: EditArtifact
    image_digest: str
    prompt: str
    target: str = ""
    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    revision: int = 0

    @property
    def name(self) -> Name:
        return self.edit_id, self.revision

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


class Source(Protocol):
    """Where edits come from that are named only. Any thread may call it."""

    def fetch(self, names: Sequence[Name]) -> list[MemoryEntry | None]:
        """In the order of `names`; None for one that is not fit to be served."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """`rows` is where an id lies; it may know more ids than are here. `held` are the entries, or
    None where `source` has them; `revisions` int64 `[rows]`."""

    index: VectorIndex
    ids: Sequence[str]
    revisions: NDArray[np.int64]
    rows: Mapping[str, int]
    first: int = 0
    held: Sequence[MemoryEntry] | None = None
    source: Source | None = None

    @classmethod
    def of(cls, entries: Sequence[MemoryEntry], dim: int) -> Self:
        """Of entries that it holds."""
        keys = np.stack([entry.artifact.key.image for entry in entries])
        ids = tuple(entry.edit_id for entry in entries)
        revisions = np.array([entry.revision for entry in entries], dtype=np.int64)
        return cls(filled(ids, keys, dim), ids, revisions, _rows(ids), held=tuple(entries))

    @classmethod
    def named(
        cls,
        ids: Sequence[str],
        keys: NDArray[np.float32],
        revisions: NDArray[np.int64],
        source: Source,
    ) -> Self:
        """Of edits that `source` has; `keys` `[n, dim]` is taken over, not copied."""
        index = filled(ids, keys, keys.shape[1])
        return cls(index, index.ids(), revisions, _rows(ids), source=source)

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, edit_id: str) -> int | None:
        """Where an edit lies in this segment."""
        place = self.rows.get(edit_id)
        if place is None or not 0 <= (row := place - self.first) < len(self):
            return None
        return row

    def name(self, row: int) -> Name:
        return self.ids[row], int(self.revisions[row])

    def state(self, row: int) -> Name:
        """What tells this state of its edit from every other: equal where it is the same one."""
        if self.held is not None and not self.revisions[row]:
            return "held", id(self.held[row])
        return self.name(row)

    def entries(self, rows: Sequence[int]) -> list[MemoryEntry | None]:
        """The edits of these rows; None for one that is not fit to be served."""
        if self.held is not None:
            return [self.held[row] for row in rows]
        assert self.source is not None
        return self.source.fetch([self.name(row) for row in rows])

    def holds(self, entry: MemoryEntry, row: int) -> bool:
        """Whether the edit of this row is the very state of it that `entry` is."""
        if entry.revision:
            return self.name(row) == entry.name
        return self.held is not None and self.held[row] is entry


def merged(
    parts: Sequence[tuple[Segment, NDArray[np.intp]]], dim: int, source: Source | None
) -> list[Segment]:
    """These rows of several segments in one, or in two where some are held and others named.

    Many that are held are named from then on, where `source` has them: it has what came with a
    revision.
    """
    total = sum(len(rows) for _, rows in parts)
    held: list[MemoryEntry] = []
    named: list[tuple[Segment, NDArray[np.intp]]] = []
    for segment, rows in parts:
        can_be_named = source is not None and bool((segment.revisions[rows] > 0).all())
        if segment.held is None or (can_be_named and total >= _MANY):
            named.append((segment, rows))
        else:
            held += [segment.held[row] for row in rows.tolist()]
    made = [_named(named, source)] if named else []
    return [*made, Segment.of(held, dim)] if held else made


def _named(parts: Sequence[tuple[Segment, NDArray[np.intp]]], source: Source | None) -> Segment:
    assert source is not None
    return Segment.named(
        [segment.ids[row] for segment, rows in parts for row in rows.tolist()],
        np.concatenate([segment.index.vectors()[rows] for segment, rows in parts]),
        np.concatenate([segment.revisions[rows] for segment, rows in parts]),
        source,
    )


def filled(ids: Sequence[str], keys: NDArray[np.float32], dim: int) -> VectorIndex:
    index: VectorIndex = INDEXES.resolve(_INDEX)(dim)
    index.add(ids, keys)
    return index


def _rows(ids: Sequence[str]) -> dict[str, int]:
    return {edit_id: row for row, edit_id in enumerate(ids)}
