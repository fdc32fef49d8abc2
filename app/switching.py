"""Taking edits back and putting them back: one at a time, or all at once to an earlier version.

Taking back never blocks and checks nothing. Putting one back checks, as a new edit is checked,
whether it would change what edits that are active by now answer to their own questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.engine import InferenceEngine
from app.errors import EditConflicts, EditStale, VersionMismatch
from app.history import Caller, History, to_the_end
from app.schemas.edits import EditView
from app.schemas.switching import ReinstateRequest, RestoreRequest, RollbackRequest
from app.store.ledger import Change, EventType
from app.timing import Stopwatch
from app.verification import StoryTeller, near
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.verification import conflicts

Switched = tuple[int, bool, EditView]
"""The head, whether it changed, and the edit."""


class Switching:
    """One per process; lives on the event loop's thread."""

    def __init__(self, *, engine: InferenceEngine, teller: StoryTeller, history: History) -> None:
        self._engine = engine
        self._teller = teller
        self._history = history

    async def roll_back(self, edit_id: str, body: RollbackRequest, caller: Caller) -> Switched:
        """Take one edit out of service. Idempotent."""
        return await to_the_end(self._roll_back(edit_id, body, caller))

    async def _roll_back(self, edit_id: str, body: RollbackRequest, caller: Caller) -> Switched:
        async with self._history.lock:
            self._history.require(edit_id)
            changes = self._history.ledger.plan_roll_back(edit_id)
            return await self._switch("rolled_back", edit_id, changes, body.reason, caller)

    async def reinstate(self, edit_id: str, body: ReinstateRequest, caller: Caller) -> Switched:
        """Put one edit back to where it would be, had it never been rolled back. Idempotent.

        Raises `EditStale` when other weights made it, and `EditConflicts` when it would change
        other edits' own answers, unless forced.
        """
        while True:
            history = self._history
            history.require(edit_id)
            base, changes = history.snapshot, history.ledger.plan_reinstate(edit_id)
            if changes and not body.force and (stale := history.stale().get(edit_id)):
                raise EditStale(f"Edit {edit_id} cannot be served: it was {stale.reason}.")
            revived = [c.edit_id for c in changes if c.after == "active"]
            entries = [] if body.force else await asyncio.to_thread(history.entries, revived)
            await self._check(entries, base, changes)
            done = await to_the_end(self._reinstate(edit_id, body, caller, entries, base))
            if done is not None:
                return done

    async def _check(
        self, entries: Sequence[MemoryEntry], base: Snapshot, changes: Sequence[Change]
    ) -> None:
        retired = [c.edit_id for c in changes if c.edit_id in base.entries]
        if not entries:
            return
        tau = self._engine.model.router.tau
        with self._engine.ticket():
            damaged = await self._teller.tell(
                conflicts(entries, base=base, retired=retired, tau=tau), watch=Stopwatch()
            )
        if damaged:
            raise EditConflicts(
                "Put back, this edit would change what other edits answer to their own questions.",
                hint='Roll those back, or send "force": true.',
                details={"conflicts_with": [d.edit_id for d in damaged]},
            )

    async def _reinstate(
        self,
        edit_id: str,
        body: ReinstateRequest,
        caller: Caller,
        entries: Sequence[MemoryEntry],
        base: Snapshot,
    ) -> Switched | None:
        """None if what was checked is no longer so."""
        history = self._history
        async with history.lock:
            keys, tau = [e.artifact.key.image for e in entries], self._engine.model.router.tau
            present = history.snapshot
            if present is not base and near(keys, base, tau) != near(keys, present, tau):
                return None
            changes = history.ledger.plan_reinstate(edit_id)
            return await self._switch("reinstated", edit_id, changes, body.reason, caller)

    async def _switch(
        self,
        kind: EventType,
        edit_id: str,
        changes: Sequence[Change],
        reason: str | None,
        caller: Caller,
    ) -> Switched:
        if changes:
            await self._history.commit(kind, changes, caller=caller, reason=reason)
        return self._history.head, bool(changes), await self._history.view(edit_id)

    async def restore(
        self, body: RestoreRequest, caller: Caller, *, if_match: int | None
    ) -> tuple[int, Sequence[Change]]:
        """Bring back what was active at an earlier version, as a new one: (head, changes)."""
        return await to_the_end(self._restore(body, caller, if_match))

    async def _restore(
        self, body: RestoreRequest, caller: Caller, if_match: int | None
    ) -> tuple[int, Sequence[Change]]:
        async with self._history.lock:
            head = self._history.head
            if if_match is not None and if_match != head:
                raise VersionMismatch(f"The version is {head}, not {if_match}.", param="If-Match")
            self._history.require_version(body.to_version, param="to_version")
            changes = self._history.ledger.plan_restore(body.to_version)
            if changes:
                await self._history.commit(
                    "restored",
                    changes,
                    caller=caller,
                    reason=body.reason,
                    from_version=body.to_version,
                )
            return self._history.head, changes
