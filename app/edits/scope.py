"""Scope by example: wordings added to an edit or taken from it, each of them kept as a key.

The edit's expert stays as it is; its keys are made anew for its new scope. Then it is tried as a
new edit is, and committed as one version. An earlier version brings its scopes back (`switch`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.edits.catalogue import Catalogue
from app.edits.edit import Edit, Findings, Outcome, Verify
from app.edits.trial import EditMaker, Made
from app.edits.wordings import checked, tidied
from app.engine import InferenceEngine
from app.errors import EditNotActive, InvalidField, MissingField
from app.history import Caller, History, to_the_end
from app.store.commits import Rescoped, ScopeChanged
from app.store.ledger import Scope
from app.store.records import Rescoping, digest_of
from app.timing import Stopwatch
from app.verification import near
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.identity import slot_prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeChange:
    """Wordings to add to an edit, and wordings to take from it. Texts are tidy."""

    rephrases: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    remove_rephrases: tuple[str, ...] = ()
    remove_not_for: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        *,
        rephrases: Sequence[str] = (),
        not_for: Sequence[str] = (),
        remove_rephrases: Sequence[str] = (),
        remove_not_for: Sequence[str] = (),
    ) -> ScopeChange:
        """Raises `InvalidField`, and `MissingField` where every list is empty."""
        change = cls(
            rephrases=tidied(rephrases, "rephrases"),
            not_for=tidied(not_for, "not_for"),
            remove_rephrases=tidied(remove_rephrases, "remove_rephrases"),
            remove_not_for=tidied(remove_not_for, "remove_not_for"),
        )
        if change == cls():
            raise MissingField(
                "There is nothing to add and nothing to remove.",
                param="rephrases",
                hint="Give rephrases, not_for, remove_rephrases or remove_not_for.",
            )
        _refuse_both("rephrases", change.rephrases, change.remove_rephrases)
        _refuse_both("not_for", change.not_for, change.remove_not_for)
        return change

    def applied(self, edit: Edit) -> Scope:
        """The edit's scope after it. Raises `InvalidField` where no edit can have that."""
        wanted, own = edit.wanted, slot_prompt(edit.wanted.prompt)
        rephrases = [text for text in self.rephrases if text != own]
        return checked(
            wanted.prompt,
            Scope(
                _changed(wanted.rephrases, rephrases, self.remove_rephrases),
                _changed(wanted.not_for, self.not_for, self.remove_not_for),
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Restoring:
    """An edit whose scope is brought back; `entry` is None where it is not fit to serve."""

    rescoped: Rescoped
    entry: MemoryEntry | None


class Scoping:
    """One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        maker: EditMaker,
        history: History,
        catalogue: Catalogue,
    ) -> None:
        self._engine = engine
        self._maker = maker
        self._history = history
        self._catalogue = catalogue

    async def change(
        self,
        edit_id: str,
        change: ScopeChange,
        *,
        verify: Verify,
        reason: str | None,
        caller: Caller,
    ) -> Outcome:
        """Add wordings to an edit, take others away. What is so already changes nothing.

        Raises `EditNotFound`, `EditNotActive`, `InvalidField`, and what refuses a new edit.
        """
        while True:
            base = self._history.snapshot
            edit = await self._changeable(edit_id)
            scope = change.applied(edit)
            if scope == edit.wanted.scope:
                return Outcome(self._history.head, False, edit)
            made, found = await self._tried(edit, scope, base, verify)
            done = await to_the_end(self._commit(edit, scope, made, found, base, reason, caller))
            if done is not None:
                return done

    async def _changeable(self, edit_id: str) -> Edit:
        edit = await self._catalogue.view(edit_id)
        if edit.status not in ("active", "superseded"):
            raise EditNotActive(f"The edit {edit_id} is {edit.status}.", param="id")
        return edit

    async def _tried(
        self, edit: Edit, scope: Scope, base: Snapshot, verify: Verify
    ) -> tuple[Made, Findings]:
        """The edit under its new keys, and what was found of it beside those active in `base`.

        One that is not active is tried alone, for it meets nobody.
        """
        entry = base.entries.get(edit.id) or await self._loaded(edit.id)
        if entry is None:
            raise EditNotActive(f"The edit {edit.id} is no longer served.", param="id")
        others = self._history.none
        if edit.id in base.entries:
            others = base.evolve(base.version + 1, deactivate=[edit.id])
        with self._engine.ticket():
            async with self._maker.stored_request(self._history.log, edit, scope) as request:
                made = await self._maker.rescoped(entry, request)
                made, found = await self._maker.tried(
                    made, base=others, mode=verify, watch=Stopwatch()
                )
        version = base.version if edit.id in base.entries else 0
        findings = Findings.of(found)
        return made, findings if found is None else replace(findings, verified_version=version)

    async def _loaded(self, edit_id: str) -> MemoryEntry | None:
        entries = await asyncio.to_thread(self._history.entries, [edit_id])
        return entries[0] if entries else None

    async def _commit(
        self,
        edit: Edit,
        scope: Scope,
        made: Made,
        found: Findings,
        base: Snapshot,
        reason: str | None,
        caller: Caller,
    ) -> Outcome | None:
        """None if what was tried is no longer so."""
        history = self._history
        async with history.lock:
            if self._is_outdated(edit, made, base):
                return None
            await history.commit(
                ScopeChanged(
                    changes=tuple(history.ledger.plan_scope(edit.id)),
                    rescoped=(_rescoped(edit.id, scope, made.data, found),),
                    reason=reason,
                ),
                caller=caller,
                brought=[made.entry],
            )
            return Outcome(history.head, True, await self._catalogue.committed(edit.id))

    def _is_outdated(self, edit: Edit, made: Made, base: Snapshot) -> bool:
        history, present = self._history, self._history.snapshot
        if history.status(edit.id) != edit.status:
            return True
        if history.ledger.revision(edit.id) > base.version:  # its keys or expert are others by now
            return True
        keys, tau = [made.entry.artifact.key.image], self._engine.facts.tau
        return present is not base and near(keys, base, tau) != near(keys, present, tau)

    # --- an earlier version's scopes --------------------------------------------------------

    async def as_of(self, version: int) -> list[Restoring]:
        """Every edit whose scope is no longer what it was at `version`, with its keys of then.

        One whose bytes are damaged is left out, and keeps its scope.
        """
        found = []
        for edit_id, scope in self._history.ledger.rescoped_since(version).items():
            try:
                found.append(await self._as_of(version, edit_id, scope))
            except ValueError as error:
                logger.error("edit %s keeps its scope: %s", edit_id, error)
        return found

    async def _as_of(self, version: int, edit_id: str, scope: Scope) -> Restoring:
        history = self._history
        stored = await asyncio.to_thread(history.log.artifact, edit_id, at=version)
        data, entry = stored.check(), history.read(stored)
        usable = entry if isinstance(entry, MemoryEntry) else None
        ledger = history.ledger
        if usable and ledger.scope(edit_id, ledger.revision(edit_id, version)) != scope:
            # Other weights made it anew since, under the scope it had by then.
            data, usable = await self._made_for(usable, scope)
        found = Findings.of_record(stored.standing)
        return Restoring(_rescoped(edit_id, scope, data, found), usable)

    async def _made_for(self, entry: MemoryEntry, scope: Scope) -> tuple[bytes, MemoryEntry]:
        edit = await self._catalogue.committed(entry.edit_id)
        with self._engine.ticket():
            async with self._maker.stored_request(self._history.log, edit, scope) as request:
                made = await self._maker.rescoped(entry, request)
        return made.data, made.entry


def _rescoped(edit_id: str, scope: Scope, data: bytes, found: Findings) -> Rescoped:
    rescoping = Rescoping(
        edit_id=edit_id,
        rephrases=scope.rephrases,
        not_for=scope.not_for,
        artifact_digest=digest_of(data),
        **found.fields(),
    )
    return Rescoped(rescoping, data)


def _changed(
    present: Sequence[str], added: Sequence[str], removed: Sequence[str]
) -> tuple[str, ...]:
    """Earlier releases kept texts as they were sent, so those are compared as tidy ones are."""
    kept = [text for text in present if slot_prompt(text) not in removed]
    known = set(map(slot_prompt, kept))
    return (*kept, *(text for text in added if text not in known))


def _refuse_both(
    name: Literal["rephrases", "not_for"], added: Sequence[str], removed: Sequence[str]
) -> None:
    if both := set(added) & set(removed):
        raise InvalidField(f"{name}: {min(both)!r} is to be added and removed.", param=name)
