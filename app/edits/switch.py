"""Taking edits back and putting them back: one at a time, or all at once to an earlier version.

Taking back never blocks and checks nothing. Putting one back checks, as a new edit is checked,
whether it would change what edits that are active by now answer to their own questions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.edits.catalogue import Catalogue
from app.edits.edit import Outcome
from app.edits.scope import Scoping
from app.engine import InferenceEngine
from app.errors import EditConflicts, EditStale, VersionMismatch
from app.history import Caller, History, to_the_end
from app.store.commits import Restored, Switched
from app.store.ledger import Change, Scope
from app.timing import Stopwatch
from app.verification import StoryTeller, near
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.verification import conflicts


@dataclass(frozen=True, slots=True)
class Restoration:
    """The head, what changed, and the edits whose scope was brought back."""

    version: int
    changes: tuple[Change, ...]
    rescoped: tuple[str, ...]


class Switching:
    """One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        teller: StoryTeller,
        history: History,
        catalogue: Catalogue,
        scoping: Scoping,
    ) -> None:
        self._engine = engine
        self._teller = teller
        self._history = history
        self._catalogue = catalogue
        self._scoping = scoping

    async def roll_back(self, edit_id: str, *, reason: str | None, caller: Caller) -> Outcome:
        """Take one edit out of service. Idempotent.

        Raises `EditNotFound`, and `EditNotCommitted` for one that is not, or never will be.
        """
        await self._catalogue.require_committed(edit_id)
        return await to_the_end(self._roll_back(edit_id, reason, caller))

    async def _roll_back(self, edit_id: str, reason: str | None, caller: Caller) -> Outcome:
        async with self._history.lock:
            changes = tuple(self._history.ledger.plan_roll_back(edit_id))
            return await self._switch(
                edit_id, Switched(type="rolled_back", changes=changes, reason=reason), caller
            )

    async def reinstate(
        self, edit_id: str, *, reason: str | None, force: bool, caller: Caller
    ) -> Outcome:
        """Put one edit back to where it would be, had it never been rolled back. Idempotent.

        Raises what `roll_back` raises, `EditStale` when other weights made it, and `EditConflicts`
        when it would change other edits' own answers, unless it is forced.
        """
        await self._catalogue.require_committed(edit_id)
        while True:
            history = self._history
            base, changes = history.snapshot, history.ledger.plan_reinstate(edit_id)
            if changes and not force and (stale := history.stale().get(edit_id)):
                raise EditStale(f"Edit {edit_id} cannot be served: it was {stale.reason}.")
            revived = [c.edit_id for c in changes if c.after == "active"]
            entries = [] if force else await asyncio.to_thread(history.entries, revived)
            await self._check(entries, base, changes)
            done = await to_the_end(self._reinstate(edit_id, reason, caller, entries, base))
            if done is not None:
                return done

    async def _check(
        self, entries: Sequence[MemoryEntry], base: Snapshot, changes: Sequence[Change]
    ) -> None:
        retired = [c.edit_id for c in changes if c.edit_id in base.entries]
        if not entries:
            return
        tau = self._engine.facts.tau
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
        reason: str | None,
        caller: Caller,
        entries: Sequence[MemoryEntry],
        base: Snapshot,
    ) -> Outcome | None:
        """None if what was checked is no longer so."""
        history = self._history
        async with history.lock:
            keys, tau = [e.artifact.key.image for e in entries], self._engine.facts.tau
            present = history.snapshot
            if present is not base and near(keys, base, tau) != near(keys, present, tau):
                return None
            changes = tuple(history.ledger.plan_reinstate(edit_id))
            return await self._switch(
                edit_id, Switched(type="reinstated", changes=changes, reason=reason), caller
            )

    async def _switch(self, edit_id: str, switched: Switched, caller: Caller) -> Outcome:
        if switched.changes:
            await self._history.commit(switched, caller=caller)
        edit = await self._catalogue.committed(edit_id)
        return Outcome(self._history.head, bool(switched.changes), edit)

    async def restore(
        self, to_version: int, *, reason: str | None, caller: Caller, if_match: int | None
    ) -> Restoration:
        """Bring back what was active at an earlier version, with its scopes, as a new one."""
        while True:
            planned = self._history.ledger.rescoped_since(to_version)
            scopes = await self._scoping.as_of(to_version)
            restored = Restored(
                changes=(),
                from_version=to_version,
                reason=reason,
                rescoped=tuple(each.rescoped for each in scopes),
            )
            brought = [each.entry for each in scopes if each.entry is not None]
            done = await to_the_end(self._restore(restored, brought, planned, caller, if_match))
            if done is not None:
                return done

    async def _restore(
        self,
        restored: Restored,
        brought: Sequence[MemoryEntry],
        planned: Mapping[str, Scope],
        caller: Caller,
        if_match: int | None,
    ) -> Restoration | None:
        """None if scopes are no longer as they were planned."""
        history, version = self._history, restored.from_version
        async with history.lock:
            if if_match is not None and if_match != history.head:
                raise VersionMismatch(
                    f"The version is {history.head}, not {if_match}.", param="If-Match"
                )
            history.require_version(version, param="to_version")
            ledger = history.ledger
            if ledger.rescoped_since(version) != planned:
                return None
            rescoped = tuple(each.rescoping.edit_id for each in restored.rescoped)
            changes = {change.edit_id: change for change in ledger.plan_restore(version)}
            for edit_id in rescoped:
                changes.setdefault(edit_id, *ledger.plan_scope(edit_id))
            in_order = sorted(changes.values(), key=lambda change: ledger[change.edit_id].version)
            restored = replace(restored, changes=tuple(in_order))
            if restored.changes:
                await history.commit(restored, caller=caller, brought=brought)
            return Restoration(history.head, restored.changes, rescoped)
