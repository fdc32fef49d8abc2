"""Image keys of all edits that can be served, active or not: a row for each, in large blocks.

Blocks are filled row by row and their rows never change, so that a snapshot of any version is these
blocks and a mask. An edit that gets another key gets another row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from editing_core.experts.memory import Part, Segment, Source
from editing_core.experts.segments import filled
from editing_core.index.base import VectorIndex

_ROWS = 4096

Keys = NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Block:
    """`keys` `[room, dim]`, of which as many rows are filled as there are `ids`."""

    first: int
    keys: Keys
    ids: list[str] = field(default_factory=list)
    index: VectorIndex | None = None

    def searchable(self, count: int) -> VectorIndex:
        """Over the first `count` rows; made anew where rows came."""
        index = self.index
        if index is None or len(index) != count:
            index = self.index = filled(self.ids[:count], self.keys[:count], self.keys.shape[1])
        return index


class KeyTable:
    """One thread writes at a time, and any may read meanwhile: rows only come at the end."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, edit_id: object) -> bool:
        return edit_id in self._places

    def put(self, edit_id: str, key: Keys) -> None:
        """An edit's key, new or the same as before."""
        if edit_id in self._places and np.array_equal(self.key(edit_id), key):
            return
        if not self._blocks or len(self._blocks[-1].ids) == len(self._blocks[-1].keys):
            self._blocks.append(_Block(self._end, np.empty((_ROWS, len(key)), np.float32)))
        block = self._blocks[-1]
        place = self._end
        block.keys[len(block.ids)] = key
        self._append(block, edit_id, place)

    def _append(self, block: _Block, edit_id: str, place: int) -> None:
        moved = self._places.pop(edit_id, None)
        # Within a block ids are distinct: a row that nobody names any more gets another name.
        if moved is not None and moved >= block.first:
            block.ids[moved - block.first] = f"{edit_id} before {place}"
            block.index = None
        block.ids.append(edit_id)
        self._places[edit_id] = place

    def fill(self, ids: Sequence[str], keys: Keys) -> None:
        """Many at once, all of them new; `keys` is taken over, not copied."""
        if not len(ids):
            return
        start = self._end
        self._blocks.append(_Block(start, keys, list(ids)))
        self._places.update({edit_id: start + row for row, edit_id in enumerate(ids)})

    def dump(self) -> tuple[list[str], Keys]:
        """Every edit, and the keys `[n, dim]` in the same order."""
        if not self._places:
            return [], np.empty((0, 0), np.float32)
        ids = list(self._places)
        return ids, np.stack([self.key(edit_id) for edit_id in ids])

    def drop(self, edit_id: str) -> None:
        self._places.pop(edit_id, None)

    def key(self, edit_id: str) -> Keys:
        place = self._places[edit_id]
        block = next(b for b in reversed(self._blocks) if b.first <= place)
        key: Keys = block.keys[place - block.first]
        return key

    def near(self, key: Keys, tau: float) -> list[tuple[str, float]]:
        """Every edit whose key has a cosine >= `tau` with this one, in no special order."""
        return [
            (edit_id, score)
            for block in self._blocks
            if block.ids
            for edit_id, score in block.searchable(len(block.ids)).range_search(key, tau)
            if self._places.get(edit_id, -1) >= block.first
        ]

    def parts(
        self,
        edit_ids: Iterable[str],
        revision: Callable[[str], int],
        source: Source,
    ) -> list[Part]:
        """What a snapshot is made of in which these edits are active, those of them that are here.

        The blocks are shared; `revision` says which state of an edit is meant.
        """
        blocks, end = list(self._blocks), self._end
        alive, revisions = np.zeros(end, bool), np.zeros(end, np.int64)
        for edit_id in edit_ids:
            if (place := self._places.get(edit_id, end)) < end:
                alive[place] = True
                revisions[place] = revision(edit_id)
        made = []
        for block in blocks:
            mine = slice(block.first, min(block.first + len(block.keys), end))
            if alive[mine].any():
                index = block.searchable(mine.stop - mine.start)
                segment = Segment(
                    index,
                    index.ids(),
                    revisions[mine],
                    self._places,
                    first=block.first,
                    source=source,
                )
                made.append(Part(segment, alive[mine]))
        return made

    @property
    def _end(self) -> int:
        """The place of the next row."""
        if not self._blocks:
            return 0
        last = self._blocks[-1]
        return last.first + len(last.ids)
