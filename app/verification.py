"""Runs the stories of verification: what they ask goes to the device, what they fetch is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.engine import InferenceEngine
from app.errors import InternalError
from app.images import decode_png
from app.store.edit_log import EditLog
from app.timing import Stopwatch
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.refinement import Refinement
from editing_core.stories import Ask, Fetch, Neighbour, Refine, Step, Story

Outcome = TypeVar("Outcome")


class StoryTeller:
    """Tells stories on one engine, for whoever holds a ticket of it, or has the turn to edit."""

    def __init__(self, engine: InferenceEngine, log: EditLog) -> None:
        self._engine = engine
        self._log = log

    async def tell(self, story: Story[Outcome], *, watch: Stopwatch) -> Outcome:
        """Run `story` to its end. Its time is counted as `verify`, or `refine`."""
        reply: Any = None
        while True:
            try:
                step = story.send(reply)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            with watch.lap("refine" if isinstance(step, Refine) else "verify"):
                reply = await self._do(step)

    async def _do(self, step: Step) -> Any:
        match step:
            case Ask(rows):
                return await self._engine.generate(rows)
            case Fetch(edit_ids):
                return await asyncio.to_thread(self._neighbours, edit_ids)
            case Refine():
                return await self._refine(step)

    async def _refine(self, step: Refine) -> Refinement | None:
        try:
            return await self._engine.refine(step.edit_id, step.wanted, max_steps=step.max_steps)
        except ArtifactCorrupt:  # it outgrew float16: nothing came of it that could be stored
            return None

    def _neighbours(self, edit_ids: Sequence[str]) -> list[Neighbour]:
        found = []
        for record, png in self._log.originals(edit_ids):
            if png is None:
                raise InternalError(
                    f"The stored picture of edit {record.id} is damaged, so nobody can tell "
                    "whether another edit would change its answer.",
                    hint=f"Restore the database, roll {record.id} back, or skip the check.",
                )
            found.append(Neighbour(record.id, decode_png(png), record.prompt, record.target))
        return found


def near(
    keys: Sequence[NDArray[np.float32]], snapshot: Snapshot, tau: float
) -> frozenset[MemoryEntry]:
    """Active edits that may take part in answering questions about pictures with these keys.

    As they are: one that was made anew, or whose scope was changed, is another.
    """
    found = (edit_id for key in keys for edit_id, _ in snapshot.image_candidates(key, tau))
    return frozenset(snapshot.entries[edit_id] for edit_id in found)
