"""Stale edits made anew: from their stored requests, by the weights that are loaded.

One after another, each tried as a new edit is tried and committed by itself, so that a run which
is cut short loses nothing and the next one goes on where it ended. An edit keeps its id, its place
in its slot and its status; one that fails its trial stays stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from app.edits.edit import Edit, Findings, Verify
from app.edits.trial import EditMaker, Made
from app.engine import InferenceEngine
from app.errors import EditNotFound, StartupError
from app.history import Caller, History, to_the_end
from app.store.artifacts import made_by
from app.store.commits import Reencoded
from app.store.records import MadeBy, Reencoding, digest_of
from app.timing import Stopwatch
from editing_core.experts.memory import Snapshot
from editing_core.verification import Verification


@dataclass(frozen=True, slots=True)
class StaleEdit:
    """An edit made by other weights, in the status that history gives it. `why`: what changed.

    `editor` is the one to make it anew: its own, or the default where that is not loaded.
    """

    edit: Edit
    why: str
    made_by: MadeBy
    editor: str


class Reencoder:
    """Lives on the event loop's thread of a process that serves nobody: nothing else commits."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        maker: EditMaker,
        history: History,
        default_editor: str | None,
    ) -> None:
        self._engine = engine
        self._maker = maker
        self._history = history
        self._default_editor = default_editor

    async def stale(self, only: Collection[str] = ()) -> list[StaleEdit]:
        """What is to be made anew, in the order of versions; of `only` these, if there are any.

        Raises `EditNotFound` on an unknown id, and `StartupError` when the default editor is
        needed and not loaded.
        """
        for edit_id in only:
            if edit_id not in self._history.ledger:
                raise EditNotFound(f"There is no edit {edit_id!r}.")
        found: list[StaleEdit] = []
        for edit_id, unfit in self._history.stale().items():
            if only and edit_id not in only:
                continue
            record = await asyncio.to_thread(self._history.log.record, edit_id)
            if record is None or unfit.made_by is None:  # it was read when it was found stale
                raise LookupError(f"edit {edit_id} vanished from the database")
            edit = Edit.of_record(record, self._history.ledger.status(edit_id))
            editor = self._editor(edit.editor)
            found.append(StaleEdit(edit, unfit.reason, unfit.made_by, editor))
        return found

    async def reencode(self, stale: StaleEdit, *, verify: Verify, caller: Caller) -> None:
        """Make one edit anew and commit it.

        Raises what refuses a new edit (`EditNotEffective`, `EditConflicts`, the library's
        `RequestError`s), and `InternalError` when its picture is damaged. Then it stays stale.
        """
        with self._engine.ticket():
            async with self._maker.stored_request(self._history.log, stale.edit) as request:
                made = await self._maker.make(
                    request,
                    edit_id=stale.edit.id,
                    image_digest=stale.edit.image_digest,
                    editor=stale.editor,
                )
                made, found = await self._maker.tried(
                    made, base=self._base(stale.edit), mode=verify, watch=Stopwatch()
                )
        await to_the_end(self._commit(stale, made, found, caller))

    def _editor(self, name: str) -> str:
        known = self._engine.facts.editors
        chosen = name if name in known else self._default_editor
        if chosen is None or chosen not in known:
            raise StartupError(
                f"the editor {chosen or name} is not loaded; choose another --editor, of: "
                f"{', '.join(sorted(known)) or 'none that fits this model'}"
            )
        return chosen

    def _base(self, edit: Edit) -> Snapshot:
        """The edits beside which it is tried: those active so far.

        One that will not be active is tried alone. It meets nobody now, and whoever reinstates
        it has it checked against its neighbours then.
        """
        return self._history.snapshot if edit.status == "active" else self._history.none

    async def _commit(
        self, stale: StaleEdit, made: Made, found: Verification | None, caller: Caller
    ) -> None:
        history = self._history
        async with history.lock:
            await history.commit(
                Reencoded(
                    changes=tuple(history.ledger.plan_reencode(stale.edit.id)),
                    reason=stale.why,
                    reencoding=Reencoding(
                        edit_id=stale.edit.id,
                        artifact_digest=digest_of(made.data),
                        old=stale.made_by,
                        new=made_by(made.entry.artifact),
                        **Findings.of(found).fields(),
                    ),
                    artifact=made.data,
                ),
                caller=caller,
                brought=[made.entry],
            )
