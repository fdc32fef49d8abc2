"""How an edit comes into being: encode, verify, commit, publish, and only then acknowledge.

Two locks order writers. One edit at a time is made (`queue` sees to it); `History.lock` is held
for the moment of a commit and is all that a rollback waits for. If a rollback or a reinstatement
changed the edit's neighbourhood while it was verified, it is verified again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from app.edits.edit import Edit, Findings, Order, Progress, Work
from app.edits.trial import EditMaker, Made
from app.engine import InferenceEngine
from app.errors import InvalidField, UnsupportedParameter
from app.history import Caller, History, now, to_the_end
from app.images import DecodedImage, ImageDecoder, encode_png
from app.store.commits import Created, SpentKey
from app.store.ledger import Change
from app.store.records import StoredImage
from app.timing import Stopwatch
from app.verification import near
from editing_core.errors import GenerationCancelled
from editing_core.experts.memory import Snapshot
from editing_core.registry import EDITORS
from editing_core.types import EditRequest
from editing_core.verification import Verification


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
        self, order: Order, image: str, caller: Caller
    ) -> tuple[Edit, StoredImage, Stopwatch]:
        """The pending edit, if nothing is wrong with it that can be told without the device.

        Its pixels are let go: what waits its turn is no more than the picture's file. The id is
        given last, so that edits which are queued as they come from here queue by their ids.
        """
        watch, editor = Stopwatch(), self._editor(order.editor)
        async with self._decoder.open(image) as decoded:
            request = order.request(decoded.pixels)
            await self._engine.validate(request, editor=editor)
            stored = await asyncio.to_thread(_stored, decoded)
        edit = Edit(
            id=self._history.next_id(),
            wanted=order,
            editor=editor,
            image_digest=stored.digest,
            created_at=now(),
            created_by=caller.actor,
            progress=Progress("queue"),
        )
        return edit, stored, watch

    async def make(self, work: Work, image: StoredImage) -> Edit:
        """Commit what was ordered. Raises what a strict edit is refused with."""
        self._editor(work.edit.editor)  # ordered before a restart, it may be gone
        async with self._decoder.reopen(image.png, work.edit.image_digest) as pixels:
            made = await self._encode(work, work.order.request(pixels))
            while True:
                base = self._history.snapshot
                work.has_come_to(Progress("verify"))
                made, found = await self._verify(work, made, base)
                edit = await to_the_end(self._commit(work, made, image, base, found))
                if edit is not None:
                    return edit

    def _editor(self, name: str | None) -> str:
        chosen = name or self._default_editor
        known = self._engine.facts.editors
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

    async def _encode(self, work: Work, request: EditRequest) -> Made:
        def on_progress(done: int, total: int, _loss: float) -> None:
            work.has_come_to(Progress("fit", done, total))

        with work.watch.lap("encode"):
            return await self._maker.make(
                request,
                edit_id=work.edit.id,
                image_digest=work.edit.image_digest,
                editor=work.edit.editor,
                on_progress=on_progress,
            )

    async def _verify(
        self, work: Work, made: Made, base: Snapshot
    ) -> tuple[Made, Verification | None]:
        """The edit as it is to be committed, and what was found of it; see `EditMaker.tried`."""
        return await self._maker.tried(
            made,
            base=base,
            retired=[c.edit_id for c in self._changes(work.edit) if c.edit_id in base.entries],
            mode=work.order.verify,
            watch=work.watch,
        )

    async def _commit(
        self,
        work: Work,
        made: Made,
        image: StoredImage,
        base: Snapshot,
        found: Verification | None,
    ) -> Edit | None:
        """The edit as it was committed; None if what was verified is no longer so."""
        history = self._history
        async with history.lock:
            if work.is_over:
                raise GenerationCancelled("the edit was withdrawn before its commit")
            if found is not None and self._is_outdated(made, base):
                return None
            edit = work.edit.committed(history.head + 1, Findings.of(found))
            key = None
            if work.key is not None:
                key = SpentKey(work.key, work.request_digest, 202 if work.is_kept else 201)
            with work.watch.lap("commit"):
                await history.commit(
                    Created(
                        changes=self._changes(edit),
                        record=edit.record(),
                        artifact=made.data,
                        image=image,
                        timings_ms=work.watch.stop,
                        key=key,
                    ),
                    caller=work.caller,
                    brought=[made.entry],
                )
            work.is_over = True
        return replace(edit, timings_ms=work.watch.read())

    def _is_outdated(self, made: Made, base: Snapshot) -> bool:
        present = self._history.snapshot
        keys, tau = [made.entry.artifact.key.image], self._engine.facts.tau
        return present is not base and near(keys, base, tau) != near(keys, present, tau)

    def _changes(self, edit: Edit) -> tuple[Change, ...]:
        ledger = self._history.ledger
        return tuple(ledger.plan_create(edit.place(ledger.head + 1)))


def _stored(image: DecodedImage) -> StoredImage:
    height, width, _ = image.pixels.shape
    return StoredImage(image.digest, encode_png(image.pixels), width, height)
