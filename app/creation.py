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
    EditConflicts,
    EditNotEffective,
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidField,
    ServiceError,
    UnsupportedParameter,
)
from app.history import Caller, History, now, to_the_end
from app.images import DecodedImage, ImageDecoder, encode_png
from app.schemas import EditCreate, EditView
from app.store.edit_log import Finished, NewEdit, StoredImage, StoredResponse
from app.store.ledger import Change, LedgerEdit
from app.store.records import EditRecord, digest_of
from app.strict_json import canonical
from app.timing import Stopwatch
from app.verification import StoryTeller, near
from editing_core.errors import ArtifactCorrupt
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.identity import slot_prompt
from editing_core.types import EditRequest
from editing_core.verification import Verification, verify

_LATER_EDITORS = frozenset({"visedit", "fitted"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body is fixed: a replay sends the same bytes."""

    status: int
    body: str
    is_replay: bool = False


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request on its way, ready to be verified.

    `entry` was decoded from `data`: what is verified, served and kept are the same bytes.
    """

    draft: EditCreate
    request: EditRequest
    entry: MemoryEntry
    data: bytes
    image: StoredImage
    caller: Caller
    key: str | None
    request_digest: str
    watch: Stopwatch

    def place(self, version: int) -> LedgerEdit:
        slot = (self.image.digest, slot_prompt(self.draft.prompt))
        return LedgerEdit(self.entry.edit_id, version, slot, tuple(self.draft.supersedes))


class EditCreation:
    """Makes edits. One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        teller: StoryTeller,
        history: History,
        default_editor: str | None,
        refine_steps: int,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._teller = teller
        self._history = history
        self._default_editor = default_editor
        self._refine_steps = refine_steps
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
                    entry, data = await self._encode(request, image, editor)
                stored = await asyncio.to_thread(_stored, image)
                attempt = _Attempt(draft, request, entry, data, stored, caller, key, digest, watch)
                while True:
                    base = self._history.snapshot
                    tried, found = await self._verify(attempt, base)
                    body = await to_the_end(self._commit(tried, base, found))
                    if body is not None:
                        return Answer(201, body)

    def _editor(self, name: str | None) -> str:
        chosen = name or self._default_editor
        known = self._engine.model.editors
        if chosen is None:
            raise UnsupportedParameter(
                "This model has no editor that fits, so it answers but takes no edits.",
                param="editor",
                hint="Serve a checkpoint with a trained editor (errata train), or the embedded "
                "model. GET /versions lists the editors that are loaded.",
            )
        if chosen in known:
            return chosen
        hint = f"This server has: {', '.join(sorted(known)) or 'none that fits its model'}."
        if chosen in _LATER_EDITORS:
            raise UnsupportedParameter(
                f"The editor {chosen} is not loaded here.", param="editor", hint=hint
            )
        raise InvalidField(f"There is no editor {chosen!r}.", param="editor", hint=hint)

    async def _encode(
        self, request: EditRequest, image: DecodedImage, editor: str
    ) -> tuple[MemoryEntry, bytes]:
        try:
            data = encode_artifact(await self._engine.encode(request, editor=editor))
        except ArtifactCorrupt as error:  # numbers too large to be stored: no such edit can exist
            raise EditNotEffective(
                f"No usable edit came out: {error.message}.",
                details={"before": None, "after": None},
            ) from error
        edit_id = self._history.next_id()
        return MemoryEntry(edit_id, decode_artifact(data), image.digest, request.prompt), data

    async def _verify(
        self, attempt: _Attempt, base: Snapshot
    ) -> tuple[_Attempt, Verification | None]:
        """The attempt as it is to be committed, refined if need be, and what was found of it.

        Nothing is found where nobody wants to know. Raises `EditNotEffective` and `EditConflicts`
        for a strict edit that fails.
        """
        draft = attempt.draft
        if draft.verify == "off":
            return attempt, None
        retired = [c.edit_id for c in self._changes(attempt) if c.edit_id in base.entries]
        found = await self._teller.tell(
            verify(
                attempt.request,
                attempt.entry,
                base=base,
                retired=retired,
                tau=self._engine.model.router.tau,
                stock=self._engine.model.stock_questions,
                max_steps=self._refine_steps,
            ),
            watch=attempt.watch,
        )
        if draft.verify == "strict" and not found.verified:
            raise _refusal(found)
        if found.entry is attempt.entry:
            return attempt, found
        data = encode_artifact(found.entry.artifact)
        return replace(attempt, entry=found.entry, data=data), found

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
                    entry=attempt.entry,
                    record_digest=new.record.digest(digest_of(attempt.data)),
                )
        return bodies[0]

    def _is_outdated(self, attempt: _Attempt, base: Snapshot) -> bool:
        present = self._history.snapshot
        keys, tau = [attempt.entry.artifact.key.image], self._engine.model.router.tau
        return present is not base and near(keys, base, tau) != near(keys, present, tau)

    def _changes(self, attempt: _Attempt) -> list[Change]:
        ledger = self._history.ledger
        return ledger.plan_create(attempt.place(ledger.head + 1))

    def _new_edit(self, attempt: _Attempt, found: Verification | None) -> tuple[NewEdit, list[str]]:
        """What is written, and where the response's body will be once it is known."""
        draft, version, bodies = attempt.draft, self._history.head + 1, list[str]()
        record = EditRecord(
            id=attempt.entry.edit_id,
            version=version,
            editor=attempt.entry.artifact.editor,
            prompt=draft.prompt,
            target=draft.target,
            image_digest=attempt.image.digest,
            before=found.before if found else None,
            after=found.after if found else None,
            verified=found.verified if found else None,
            verified_version=found.version if found else None,
            damaged=tuple(damage.wire() for damage in found.damaged) if found else (),
            refinement_steps=found.refinement_steps if found else 0,
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

        new = NewEdit(record, attempt.data, attempt.image, finish, attempt.key)
        return new, bodies


def _refusal(found: Verification) -> ServiceError:
    answers = {"before": found.before, "after": found.after}
    if found.conflicts_with:
        return EditConflicts(
            "This edit and others would answer each other's questions.",
            details={"conflicts_with": list(found.conflicts_with), **answers},
        )
    if found.failed:
        prompt, answer = found.failed[0]
        message = f"With this edit the model answers {prompt!r} with {answer!r}, not the target."
    else:
        changed = ", ".join(repr(damage.prompt) for damage in found.damaged)
        message = f"The edit would also change other answers about its picture: {changed}."
    return EditNotEffective(
        message, details={**answers, "damaged": [damage.wire() for damage in found.damaged]}
    )


def _stored(image: DecodedImage) -> StoredImage:
    height, width, _ = image.pixels.shape
    return StoredImage(image.digest, encode_png(image.pixels), width, height)


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch(
        "This Idempotency-Key was used for a different request.", param="Idempotency-Key"
    )
