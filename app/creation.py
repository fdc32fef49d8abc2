"""How an edit comes into being: encode, verify, commit, publish, and only then acknowledge.

Two locks order writers. One edit at a time is made (`app/jobs.py` sees to it); `History.lock` is
held for the moment of a commit and is all that a rollback waits for. If a rollback or a
reinstatement changed the edit's neighbourhood while it was verified, it is verified again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from app.engine import InferenceEngine
from app.errors import InvalidField, UnsupportedParameter
from app.history import Caller, History, now, to_the_end
from app.images import DecodedImage, ImageDecoder, encode_png
from app.making import EditMaker, Made, findings_of
from app.orders import Answer, Order
from app.schemas.edits import EditCreate, EditView, ProgressView
from app.store.edit_log import Finished, NewEdit, StoredImage, StoredResponse
from app.store.ledger import Change
from app.store.records import EditRecord, digest_of
from app.timing import Stopwatch
from app.verification import near
from editing_core.errors import GenerationCancelled
from editing_core.experts.memory import Snapshot
from editing_core.registry import EDITORS
from editing_core.types import EditRequest, ImageArray
from editing_core.verification import Verification

_VERIFYING = ProgressView(stage="verify", done=0, total=None)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An order on its way, ready to be verified."""

    order: Order
    made: Made
    image: StoredImage


class EditCreation:
    """Makes edits. One per process; lives on the event loop's thread."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        maker: EditMaker,
        history: History,
        default_editor: str | None,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._maker = maker
        self._history = history
        self._default_editor = default_editor

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
            made = await self._encode(order, _request(pixels, order.draft))
            attempt = _Attempt(order, made, image)
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
        if chosen in EDITORS:
            raise UnsupportedParameter(
                f"The editor {chosen} is not loaded here.", param="editor", hint=hint
            )
        raise InvalidField(f"There is no editor {chosen!r}.", param="editor", hint=hint)

    async def _encode(self, order: Order, request: EditRequest) -> Made:
        def on_progress(done: int, total: int, _loss: float) -> None:
            order.progress = ProgressView(stage="fit", done=done, total=total)

        with order.watch.lap("encode"):
            return await self._maker.make(
                request,
                edit_id=order.id,
                image_digest=order.image_digest,
                editor=order.editor,
                on_progress=on_progress,
            )

    async def _verify(
        self, attempt: _Attempt, base: Snapshot
    ) -> tuple[_Attempt, Verification | None]:
        """The attempt as it is to be committed, and what was found of it; see `EditMaker.tried`."""
        made, found = await self._maker.tried(
            attempt.made,
            base=base,
            retired=[c.edit_id for c in self._changes(attempt) if c.edit_id in base.entries],
            mode=attempt.order.draft.verify,
            watch=attempt.order.watch,
        )
        return replace(attempt, made=made), found

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
                    entry=attempt.made.entry,
                    record_digest=new.record.digest(digest_of(attempt.made.data)),
                )
            order.is_over = True
        return bodies[0]

    def _is_outdated(self, attempt: _Attempt, base: Snapshot) -> bool:
        present = self._history.snapshot
        keys, tau = [attempt.made.entry.artifact.key.image], self._engine.model.router.tau
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
            **findings_of(found),
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

        new = NewEdit(record, attempt.made.data, attempt.image, finish, order.key)
        return new, bodies


def _request(pixels: ImageArray, draft: EditCreate) -> EditRequest:
    return EditRequest(pixels, draft.prompt, draft.target, tuple(draft.rephrases))


def _stored(image: DecodedImage) -> StoredImage:
    height, width, _ = image.pixels.shape
    return StoredImage(image.digest, encode_png(image.pixels), width, height)
