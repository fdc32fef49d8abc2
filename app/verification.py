"""Runs the stories of verification: what they ask goes to the device, what they fetch is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.engine import InferenceEngine
from app.images import ImageDecoder
from app.neighbours import KeptPictures, Neighbours
from app.store.edit_log import EditLog
from app.timing import Stopwatch
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.memory import Name, Snapshot
from editing_core.refinement import Refinement, Wanted
from editing_core.stories import Ask, Decide, Fetch, Refine, Screen, Step, Story

Outcome = TypeVar("Outcome")

_STORIES_AT_ONCE = 2
"""Each holds pictures of neighbours, beside those that requests hold."""


class StoryTeller:
    """Tells stories on one engine, for whoever holds a ticket of it, or has the turn to edit."""

    def __init__(self, engine: InferenceEngine, log: EditLog, decoder: ImageDecoder) -> None:
        self._engine = engine
        self._log = log
        self._decoder = decoder
        self._kept = KeptPictures()
        self._rooms = asyncio.Semaphore(_STORIES_AT_ONCE)

    async def tell(self, story: Story[Outcome], *, watch: Stopwatch) -> Outcome:
        """Run `story` to its end. Its time is counted as `verify`, or `refine`."""
        async with self._rooms:
            return await self._tell(story, Neighbours(self._log, self._decoder, self._kept), watch)

    async def _tell(
        self, story: Story[Outcome], neighbours: Neighbours, watch: Stopwatch
    ) -> Outcome:
        reply: Any = None
        while True:
            try:
                step = story.send(reply)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            with watch.lap("refine" if isinstance(step, Refine) else "verify"):
                reply = await self._do(step, neighbours)

    async def _do(self, step: Step, neighbours: Neighbours) -> Any:
        match step:
            case Ask(rows):
                return [
                    result
                    async for group in neighbours.shown(rows)
                    for result in await self._engine.generate(group, for_edit=True)
                ]
            case Decide(rows):
                return [
                    decision
                    async for group in neighbours.shown(rows)
                    for decision in await self._engine.decide(group)
                ]
            case Screen(questions, edits):
                return await self._engine.may_mean(questions, edits)
            case Fetch(edit_ids):
                return await asyncio.to_thread(neighbours.fetch, edit_ids)
            case Refine():
                return await self._refine(step, await neighbours.wanted(step.wanted))

    async def _refine(self, step: Refine, wanted: Sequence[Wanted]) -> Refinement | None:
        try:
            return await self._engine.refine(step.edit_id, wanted, max_steps=step.max_steps)
        except ArtifactCorrupt:  # it outgrew float32: nothing came of it that could be stored
            return None


def near(keys: Sequence[NDArray[np.float32]], snapshot: Snapshot, tau: float) -> frozenset[Name]:
    """Active edits that may take part in answering questions about pictures with these keys.

    As they are: one that was made anew, or whose scope was changed, is another.
    """
    return frozenset(name for key in keys for name in snapshot.names_near(key, tau))
