"""How often each edit takes part in an answer: counted in memory, written every few seconds.

Nothing here waits on an answer's path. What a process had not written when it was killed is
missing, so a count says "at least".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from app.errors import StoreDamaged, StoreUnavailable
from app.history import now
from app.store.firing_log import Firing, FiringLog

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
"""How often counts are written: as much as a killed process loses."""

MOST = 100_000
"""Edits counted between two writes, should the database not answer for long."""


class Firings:
    """One per process; lives on the event loop's thread."""

    def __init__(self, log: FiringLog) -> None:
        self._log = log
        self._new: dict[str, Firing] = {}
        self._turn = asyncio.Lock()
        """Held while counts move from memory to the database, and while both are read."""

    def fired(self, edit_ids: Iterable[str]) -> None:
        """These edits took part in one answer, now."""
        at = now()
        for edit_id in edit_ids:
            self._count(edit_id, Firing(1, at))

    def _count(self, edit_id: str, more: Firing) -> None:
        known = self._new.get(edit_id)
        if known is not None:
            self._new[edit_id] = known.and_then(more)
        elif len(self._new) < MOST:
            self._new[edit_id] = more

    async def of(self, edit_ids: Sequence[str]) -> dict[str, Firing]:
        """Those of them that ever took part, up to now. Raises `StoreUnavailable`."""
        async with self._turn:
            stored = await asyncio.to_thread(self._log.of, edit_ids)
            for edit_id in edit_ids:
                if (more := self._new.get(edit_id)) is not None:
                    known = stored.get(edit_id)
                    stored[edit_id] = more if known is None else known.and_then(more)
        return stored

    async def run(self) -> None:
        """Write what was counted, again and again, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was counted. Where the database does not answer, it is kept for later."""
        async with self._turn:
            taken, self._new = self._new, {}
            try:
                await asyncio.to_thread(self._log.add, taken)
            except (StoreUnavailable, StoreDamaged) as error:
                logger.warning("how often %d edits fired is written later: %s", len(taken), error)
                later, self._new = self._new, taken
                for edit_id, more in later.items():
                    self._count(edit_id, more)
