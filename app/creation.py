"""How an edit comes into being: encode, verify, commit, publish, and only then acknowledge.

Two locks order writers. One edit at a time is verified; `History.lock` is held for the moment of a
commit and is all that a rollback waits for. If a rollback or a reinstatement changed the edit's
neighbourhood while it was verified, it is verified again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from app.engine import InferenceEngine
from app.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidField,
    UnsupportedParameter,
)
from app.history import Caller, History, now, to_the_end
from app.images import DecodedImage, ImageDecoder, encode_png
from app.making import EditMaker, Made, findings_of
from app.schemas import EditCreate, EditView
from app.store.edit_log import Finished, NewEdit, StoredImage, StoredResponse
from app.store.ledger import Change, LedgerEdit
from app.store.records import EditRecord, digest_of
from app.strict_json import canonical
from app.timing import Stopwatch
from app.verification import near
from editing_core.experts.memory import Snapshot
from editing_core.identity import slot_prompt
from editing_core.types import EditRequest
from editing_core.verification import Verification

_LATER_EDITORS = frozenset({"visedit", "fitted"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is fixed: a replay sends the same bytes."""

    status: int
    body: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request on its way, ready to be verified."""

    draft: EditCreate
    made: Made
    image: StoredImage
    caller: Caller
    key: str | None
    request_digest: str
    watch: Stopwatch

    def place(self, version: int) -> LedgerEdit:
        slot = (self.image.digest, slot_prompt(self.draft.prompt))
        return LedgerEdit(self.made.entry.edit_id, version, slot, tuple(self.draft.supersedes))


class EditCreation:
    """Makes edits. One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        maker: EditMaker,
        history: History,
        default_editor: str,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._maker = maker
        self._history = history
        self._default_editor = default_editor
        self._one_at_a_time = asyncio.Lock()
        self._in_progress: dict[str, str] = {}

    async def create(self, draft: EditCreate, *, key: str | None, caller: Caller) -> Answer:
        """Commit one edit, or answer again what idempotency key `key` was answered before."""
        digest = digest_of(canonical(draft.model_dump()))
        if key is None:
            return await self._create(draft, key, digest, caller)
        if (running := self._in_progress.get(key)) is not None:
            if running != digest:
                raise _mismatch()
            raise IdempotencyInProgress("A request with this Idempotency-Key is still running.")
        self._in_progress[key] = digest
        try:
            stored = await asyncio.to_thread(self._history.log.stored_response, key)
            if stored is None:
                return await self._create(draft, key, digest, caller)
            if stored.request_digest != digest:
                raise _mismatch()
            return Answer(stored.status, stored.body, is_replay=True)
        finally:
            del self._in_progress[key]

    async def _create(
        self, draft: EditCreate, key: str | None, digest: str, caller: Caller
    ) -> Answer:
        editor = self._editor(draft.editor)
        for edit_id in draft.supersedes:
            self._history.require(edit_id, param="supersedes")
        watch = Stopwatch()
        with self._engine.ticket():
            async with self._decoder.open(draft.image) as image, self._one_at_a_time:
                request = EditRequest(
                    image.pixels, draft.prompt, draft.target, tuple(draft.rephrases)
                )
                with watch.lap("encode"):
                    made = await self._maker.make(
                        request,
                        edit_id=self._history.next_id(),
                        image_digest=image.digest,
                        editor=editor,
                    )
                stored = await asyncio.to_thread(_stored, image)
                attempt = _Attempt(draft, made, stored, caller, key, digest, watch)
                while True:
                    base = self._history.snapshot
                    tried, found = await self._verify(attempt, base)
                    body = await to_the_end(self._commit(tried, base, found))
                    if body is not None:
                        return Answer(201, body)

    def _editor(self, name: str | None) -> str:
        chosen = name or self._default_editor
        known = self._engine.model.editors
        if chosen in known:
            return chosen
        hint = f"This server has: {', '.join(sorted(known))}."
        if chosen in _LATER_EDITORS:
            raise UnsupportedParameter(
                f"The editor {chosen} is not loaded here.", param="editor", hint=hint
            )
        raise InvalidField(f"There is no editor {chosen!r}.", param="editor", hint=hint)

    async def _verify(
        self, attempt: _Attempt, base: Snapshot
    ) -> tuple[_Attempt, Verification | None]:
        """The attempt as it is to be committed, and what was found of it; see `EditMaker.tried`."""
        made, found = await self._maker.tried(
            attempt.made,
            base=base,
            retired=[c.edit_id for c in self._changes(attempt) if c.edit_id in base.entries],
            mode=attempt.draft.verify,
            watch=attempt.watch,
        )
        return replace(attempt, made=made), found

    async def _commit(
        self, attempt: _Attempt, base: Snapshot, found: Verification | None
    ) -> str | None:
        """The response's body; None if what was verified is no longer so."""
        history = self._history
        async with history.lock:
            if found is not None and self._is_outdated(attempt, base):
                return None
            new, bodies = self._new_edit(attempt, found)
            with attempt.watch.lap("commit"):
                await history.commit(
                    "edit_created",
                    self._changes(attempt),
                    caller=attempt.caller,
                    new=new,
                    entry=attempt.made.entry,
                    record_digest=new.record.digest(digest_of(attempt.made.data)),
                )
        return bodies[0]

    def _is_outdated(self, attempt: _Attempt, base: Snapshot) -> bool:
        present = self._history.snapshot
        keys, tau = [attempt.made.entry.artifact.key.image], self._engine.model.router.tau
        return present is not base and near(keys, base, tau) != near(keys, present, tau)

    def _changes(self, attempt: _Attempt) -> list[Change]:
        ledger = self._history.ledger
        return ledger.plan_create(attempt.place(ledger.head + 1))

    def _new_edit(self, attempt: _Attempt, found: Verification | None) -> tuple[NewEdit, list[str]]:
        """What is written, and where the response's body will be once it is known."""
        draft, version, bodies = attempt.draft, self._history.head + 1, list[str]()
        entry = attempt.made.entry
        record = EditRecord(
            id=entry.edit_id,
            version=version,
            editor=entry.artifact.editor,
            prompt=draft.prompt,
            target=draft.target,
            image_digest=attempt.image.digest,
            **findings_of(found),
            rephrases=tuple(draft.rephrases),
            supersedes=tuple(draft.supersedes),
            note=draft.note,
            tags=tuple(draft.tags),
            created_at=now(),
            created_by=attempt.caller.actor,
        )

        def finish() -> Finished:
            timings = attempt.watch.read()
            view = EditView.of(replace(record, timings_ms=timings), "active")
            bodies.append(view.model_dump_json())
            return Finished(timings, StoredResponse(attempt.request_digest, 201, bodies[0]))

        new = NewEdit(record, attempt.made.data, attempt.image, finish, attempt.key)
        return new, bodies


def _stored(image: DecodedImage) -> StoredImage:
    height, width, _ = image.pixels.shape
    return StoredImage(image.digest, encode_png(image.pixels), width, height)


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch(
        "This Idempotency-Key was used for a different request.", param="Idempotency-Key"
    )
