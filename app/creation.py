"""How an edit comes into being: encode, verify, commit, publish, and only then acknowledge.

Two locks order writers. One edit at a time is made (`app/jobs.py` sees to it); `History.lock` is
held for the moment of a commit and is all that a rollback waits for. If a rollback or a
reinstatement changed the edit's neighbourhood while it was verified, it is verified again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from app.engine import InferenceEngine
from app.errors import (
    EditConflicts,
    EditNotEffective,
    InvalidField,
    ServiceError,
    UnsupportedParameter,
)
from app.history import Caller, History, now, to_the_end
from app.images import DecodedImage, ImageDecoder, encode_png
from app.orders import Answer, Order
from app.schemas import EditCreate, EditView, ProgressView
from app.store.edit_log import Finished, NewEdit, StoredImage, StoredResponse
from app.store.ledger import Change
from app.store.records import EditRecord, digest_of
from app.timing import Stopwatch
from app.verification import StoryTeller, near
from editing_core.errors import ArtifactCorrupt, GenerationCancelled
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.types import EditRequest, ImageArray
from editing_core.verification import Verification, verify

_LATER_EDITORS = frozenset({"visedit", "fitted"})
_VERIFYING = ProgressView(stage="verify", done=0, total=None)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An order on its way, ready to be verified.

    `entry` was decoded from `data`: what is verified, served and kept are the same bytes.
    """

    order: Order
    request: EditRequest
    entry: MemoryEntry
    data: bytes
    image: StoredImage


class EditCreation:
    """Makes edits. One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        teller: StoryTeller,
        history: History,
        default_editor: str,
        refine_steps: int,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._teller = teller
        self._history = history
        self._default_editor = default_editor
        self._refine_steps = refine_steps

    async def admit(
        self, draft: EditCreate, *, key: str | None, request_digest: str, caller: Caller
    ) -> Order:
        """The order, if nothing is wrong with it that can be told without the device.

        Its pixels are let go: whoever waits its turn holds no more than the picture's file. The id
        is given last, so that orders which are queued as they come from here queue by their ids.
        """
        watch, editor = Stopwatch(), self._editor(draft.editor)
        async with self._decoder.open(draft.image) as image:
            request = _request(image.pixels, draft)
            await asyncio.to_thread(self._engine.model.validate, request, editor=editor)
            stored = await asyncio.to_thread(_stored, image)
        return Order(
            id=self._history.next_id(),
            draft=draft.model_copy(update={"image": ""}),
            editor=editor,
            image_digest=stored.digest,
            caller=caller,
            key=key,
            request_digest=request_digest,
            created_at=now(),
            image=stored,
            watch=watch,
        )

    async def make(self, order: Order, image: StoredImage) -> Answer:
        """Commit what was ordered. Raises what a strict edit is refused with."""
        self._editor(order.editor)  # ordered before a restart, it may be gone
        async with self._decoder.reopen(image.png) as pixels:
            request = _request(pixels, order.draft)
            with order.watch.lap("encode"):
                entry, data = await self._encode(order, request)
            attempt = _Attempt(order, request, entry, data, image)
            while True:
                base = self._history.snapshot
                order.progress = _VERIFYING
                tried, found = await self._verify(attempt, base)
                body = await to_the_end(self._commit(tried, base, found))
                if body is not None:
                    return Answer(201, body, order.id)

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

    async def _encode(self, order: Order, request: EditRequest) -> tuple[MemoryEntry, bytes]:
        def on_progress(done: int, total: int) -> None:
            order.progress = ProgressView(stage="fit", done=done, total=total)

        try:
            artifact = await self._engine.encode(
                request, editor=order.editor, on_progress=on_progress
            )
            data = encode_artifact(artifact)
        except ArtifactCorrupt as error:  # numbers too large to be stored: no such edit can exist
            raise EditNotEffective(
                f"No usable edit came out: {error.message}.",
                details={"before": None, "after": None},
            ) from error
        entry = MemoryEntry(order.id, decode_artifact(data), order.image_digest, request.prompt)
        return entry, data

    async def _verify(
        self, attempt: _Attempt, base: Snapshot
    ) -> tuple[_Attempt, Verification | None]:
        """The attempt as it is to be committed, refined if need be, and what was found of it.

        Nothing is found where nobody wants to know. Raises `EditNotEffective` and `EditConflicts`
        for a strict edit that fails.
        """
        draft, watch = attempt.order.draft, attempt.order.watch
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
            watch=watch,
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
        history, order = self._history, attempt.order
        async with history.lock:
            if order.is_over:
                raise GenerationCancelled("the edit was withdrawn before its commit")
            if found is not None and self._is_outdated(attempt, base):
                return None
            new, bodies = self._new_edit(attempt, found)
            with order.watch.lap("commit"):
                await history.commit(
                    "edit_created",
                    self._changes(attempt),
                    caller=order.caller,
                    new=new,
                    entry=attempt.entry,
                    record_digest=new.record.digest(digest_of(attempt.data)),
                )
            order.is_over = True
        return bodies[0]

    def _is_outdated(self, attempt: _Attempt, base: Snapshot) -> bool:
        present = self._history.snapshot
        keys, tau = [attempt.entry.artifact.key.image], self._engine.model.router.tau
        return present is not base and near(keys, base, tau) != near(keys, present, tau)

    def _changes(self, attempt: _Attempt) -> list[Change]:
        ledger = self._history.ledger
        return ledger.plan_create(attempt.order.place(ledger.head + 1))

    def _new_edit(self, attempt: _Attempt, found: Verification | None) -> tuple[NewEdit, list[str]]:
        """What is written, and where the response's body will be once it is known."""
        order, bodies = attempt.order, list[str]()
        draft = order.draft
        record = EditRecord(
            id=order.id,
            version=self._history.head + 1,
            editor=order.editor,
            prompt=draft.prompt,
            target=draft.target,
            image_digest=order.image_digest,
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
            created_at=order.created_at,
            created_by=order.caller.actor,
        )

        def finish() -> Finished:
            timings = order.watch.read()
            view = EditView.of(replace(record, timings_ms=timings), "active")
            bodies.append(view.model_dump_json())
            status = 202 if order.is_kept else 201
            response = StoredResponse(order.request_digest, status, bodies[0], order.id)
            return Finished(timings, response)

        new = NewEdit(record, attempt.data, attempt.image, finish, order.key)
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


def _request(pixels: ImageArray, draft: EditCreate) -> EditRequest:
    return EditRequest(pixels, draft.prompt, draft.target, tuple(draft.rephrases))


def _stored(image: DecodedImage) -> StoredImage:
    height, width, _ = image.pixels.shape
    return StoredImage(image.digest, encode_png(image.pixels), width, height)
