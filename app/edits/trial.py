"""Making an edit and trying it: what new edits have in common with those that are made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app.edits.edit import Edit, Verify
from app.engine import InferenceEngine
from app.errors import EditConflicts, EditNotEffective, InternalError, ServiceError
from app.images import ImageDecoder
from app.store.edit_log import EditLog
from app.store.ledger import Scope
from app.timing import Stopwatch
from app.verification import StoryTeller
from editing_core.errors import ArtifactCorrupt, NotFinite
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import EditArtifact, EditRequest, OnProgress, Sampling
from editing_core.verification import Verification, verify


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """An edit that is not in force yet.

    `entry` was decoded from `data`: what is verified, served and kept are the same bytes.
    """

    request: EditRequest
    entry: MemoryEntry
    data: bytes


class EditMaker:
    """One per process; lives on the event loop's thread.

    Whoever uses it holds a ticket of the engine, or has the turn to edit.
    """

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        teller: StoryTeller,
        refine_steps: int,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._teller = teller
        self._refine_steps = refine_steps

    async def make(
        self,
        request: EditRequest,
        *,
        edit_id: str,
        image_digest: str,
        editor: str,
        on_progress: OnProgress | None = None,
    ) -> Made:
        """Encode one edit. `on_progress` is called on the device thread, see `InferenceEngine`.

        Raises the library's `RequestError`s, and `EditNotEffective` when its numbers are too large
        to be stored: no such edit can exist.
        """
        try:
            artifact = await self._engine.encode(request, editor=editor, on_progress=on_progress)
            return _made(request, artifact, edit_id, image_digest)
        except ArtifactCorrupt as error:
            raise _unusable(error) from error

    @asynccontextmanager
    async def stored_request(
        self, log: EditLog, edit: Edit, scope: Scope | None = None
    ) -> AsyncIterator[EditRequest]:
        """What `edit` was made of, for its own scope or another; its pixels count as held.

        Raises `InternalError` or `StoreDamaged` where its picture is damaged.
        """
        png = await asyncio.to_thread(stored_picture, log, edit.id)
        wanted = edit.wanted if scope is None else edit.wanted.within(scope)
        async with self._decoder.reopen(png, edit.image_digest) as pixels:
            yield wanted.request(pixels)

    async def rescoped(self, entry: MemoryEntry, request: EditRequest) -> Made:
        """The same edit under keys for the wordings of `request`.

        Raises what `InferenceEngine.rescope` raises.
        """
        artifact = await self._engine.rescope(entry.artifact, request)
        return _made(request, artifact, entry.edit_id, entry.image_digest)

    async def tried(
        self,
        made: Made,
        *,
        base: Snapshot,
        retired: Collection[str] = (),
        mode: Verify,
        watch: Stopwatch,
    ) -> tuple[Made, Verification | None]:
        """The edit as it is to be committed, refined if need be, and what was found of it.

        It is tried beside the active edits of `base`, less those of them that it `retired`.
        Nothing is found where nobody wants to know. Raises `EditNotEffective` and `EditConflicts`
        for a strict edit that fails, and for any with which the model gives no numbers.
        """
        if mode == "off":
            return made, None
        # Neighbours that are not in memory are read here, and not where the story is told.
        key, tau = made.entry.artifact.key.image, self._engine.facts.tau
        await asyncio.to_thread(base.image_candidates, key, tau)
        story = verify(
            made.request,
            made.entry,
            base=base,
            retired=retired,
            tau=self._engine.facts.tau,
            stock=self._engine.facts.stock_questions,
            max_steps=self._refine_steps,
        )
        try:
            found = await self._teller.tell(story, watch=watch)
        except NotFinite as error:
            if made.entry.edit_id not in error.edits:
                raise
            # If the model gives none without it either, this raises what it should.
            request = made.request
            await self._engine.generate(
                [GenerationRow(request.prompt, request.image, Sampling(1), base)], for_edit=True
            )
            raise _unusable(error) from error
        if mode == "strict" and not found.verified:
            raise _refusal(found)
        if found.entry is made.entry:
            return made, found
        return replace(made, entry=found.entry, data=encode_artifact(found.entry.artifact)), found


def stored_picture(log: EditLog, edit_id: str) -> bytes:
    """The PNG that an edit was made of. Blocking. Raises `InternalError` where it is damaged."""
    ((_, png),) = log.originals([edit_id])
    if png is None:
        raise InternalError(
            f"The stored picture of edit {edit_id} is damaged.",
            hint="Restore the database from a backup, or make the edit again.",
        )
    return png


def _made(request: EditRequest, artifact: EditArtifact, edit_id: str, image_digest: str) -> Made:
    data = encode_artifact(artifact)
    entry = MemoryEntry.of(edit_id, decode_artifact(data), request, image_digest=image_digest)
    return Made(request, entry, data)


def _unusable(error: ArtifactCorrupt | NotFinite) -> ServiceError:
    """Its numbers are too large to be stored, or to be computed with."""
    return EditNotEffective(
        f"No usable edit came out: {error.message}.",
        hint="Use another editor (GET /versions lists them), or a wider --dtype: bf16 or fp32.",
        details={"before": None, "after": None},
    )


def _refusal(found: Verification) -> ServiceError:
    answers = {"before": found.before, "after": found.after}
    hint = None
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
        hint = (
            'Name these questions in "not_for", so that the edit leaves them alone, or send '
            '"verify": "report" to keep it anyway.'
        )
    return EditNotEffective(
        message,
        hint=hint,
        details={**answers, "damaged": [damage.wire() for damage in found.damaged]},
    )
