"""What the server can do, put together: edits are made and switched, questions answered.

Edits have rooms of their own (`app/edits`), which routes enter directly. Lives on the event loop's
thread; what blocks runs elsewhere (`app/engine.py`, worker threads).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from app.edits.catalogue import Catalogue
from app.edits.create import EditCreation
from app.edits.edit import Edit, Work
from app.edits.queue import EditQueue
from app.edits.scope import Scoping
from app.edits.switch import Switching
from app.edits.trial import EditMaker
from app.engine import InferenceEngine
from app.feedback.answers import KeptAnswer
from app.feedback.desk import FeedbackDesk
from app.history import History
from app.images import DecodedImage, ImageDecoder, data_uri
from app.metrics import Metrics, Pace
from app.schemas.attributions import AttributionRequest, AttributionView
from app.schemas.generation import (
    AppliedView,
    CandidateView,
    GenerateRequest,
    GenerateView,
    UsageView,
)
from app.store.job_log import JobLog
from app.store.records import Event
from app.timing import Stopwatch
from app.ulid import new_ulid
from app.verification import StoryTeller
from editing_core.attribution.attribute import Attribution
from editing_core.errors import RequestError
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import Candidate, GenerationResult


class EditingService:
    """Everything the API can do. One per process. `queue`, `switching`, `catalogue`: its edits."""

    def __init__(
        self,
        *,
        engine: InferenceEngine,
        decoder: ImageDecoder,
        history: History,
        model_name: str,
        default_editor: str | None,
        refine_steps: int,
        job_log: JobLog,
        metrics: Metrics,
        feedback: FeedbackDesk,
        edit_wait_s: float,
        edit_limit: int,
    ) -> None:
        self.engine = engine
        self.history = history
        self.model_name = model_name
        self.default_editor = default_editor
        self._decoder = decoder
        self._metrics = metrics
        self.feedback = feedback
        teller = StoryTeller(engine, history.log, decoder)
        self.maker = EditMaker(
            engine=engine, decoder=decoder, teller=teller, refine_steps=refine_steps
        )
        under_way: dict[str, Work] = {}
        self.catalogue = Catalogue(history, job_log, under_way)
        creation = EditCreation(
            engine=engine,
            decoder=decoder,
            maker=self.maker,
            history=history,
            default_editor=default_editor,
        )
        self.queue = EditQueue(
            creation=creation,
            catalogue=self.catalogue,
            engine=engine,
            history=history,
            log=job_log,
            under_way=under_way,
            wait_s=edit_wait_s,
            limit=edit_limit,
            on_end=self._edit_ended,
        )
        self.scoping = Scoping(
            engine=engine, maker=self.maker, history=history, catalogue=self.catalogue
        )
        self.switching = Switching(
            engine=engine,
            teller=teller,
            history=history,
            catalogue=self.catalogue,
            scoping=self.scoping,
        )

    # --- answer -----------------------------------------------------------------------------

    async def generate(
        self, ask: GenerateRequest, *, on_tokens: Callable[[int, str], None] | None = None
    ) -> GenerateView:
        """Answer on one pinned snapshot. `on_tokens` is called on the device thread."""
        watch = Stopwatch()
        if ask.min_version is not None:
            await self.history.wait_for(ask.min_version)
        if ask.at_version is not None:
            self.history.require_version(ask.at_version, param="at_version")
        with self.engine.ticket(self._most_tokens(ask)):
            async with self._image(ask.image) as image:
                snapshot = await self._snapshot(ask)
                row = GenerationRow(
                    ask.prompt,
                    image.pixels if image else None,
                    ask.sampling,
                    snapshot if ask.edits == "on" else None,
                )
                pace = Pace()

                def piece(row: int, text: str) -> None:
                    pace.piece()
                    if on_tokens is not None:
                        on_tokens(row, text)

                with watch.lap("generate"):
                    (result,) = await self.engine.generate([row], on_tokens=piece)
                self._answered(pace, result)
                candidates = await self._explain(row, result) if ask.explain else None
        answer = GenerateView(
            id=new_ulid(),
            text=result.text,
            finish_reason=result.finish_reason,
            model=self.model_name,
            version=snapshot.version,
            applied=[AppliedView.of(each) for each in result.decision.applied],
            candidates=candidates,
            usage=UsageView.of(result),
            timings_ms=watch.read(),
        )
        self.feedback.answers.remember(
            KeptAnswer(
                id=answer.id,
                prompt=ask.prompt,
                image=ask.image,
                text=answer.text,
                version=answer.version,
                applied=tuple(each.edit_id for each in answer.applied),
            )
        )
        return answer

    async def attribute(self, ask: AttributionRequest) -> AttributionView:
        """Explain one token of the base model's answer. Drawn in a worker thread."""
        with self.engine.ticket():
            async with self._decoder.open(ask.image) as image:
                found = await self.engine.attribute(image.pixels, ask.prompt, token=ask.token)
                drawn = await asyncio.to_thread(_draw, found, image, ask.prompt)
        return AttributionView.of(found, picture=data_uri(drawn))

    # --- what is counted of it --------------------------------------------------------------

    def _answered(self, pace: Pace, result: GenerationResult) -> None:
        self._metrics.answered(
            pace,
            finish_reason=result.finish_reason,
            prompt_tokens=result.prompt_tokens,
            new_tokens=result.completion_tokens,
            candidates=len(result.decision.candidates),
            applied=len(result.decision.applied),
        )

    def _edit_ended(self, work: Work, ended: asyncio.Task[Edit]) -> None:
        verified = None
        if ended.cancelled():
            outcome = "cancelled"
        elif (error := ended.exception()) is not None:
            refused = isinstance(error, RequestError) or getattr(error, "status", 500) < 500
            outcome = "refused" if refused else "failed"
        else:
            outcome, verified = "committed", ended.result().found.verified
        self._metrics.edit_ended(outcome, work.watch.read(), verified=verified)

    # --- pictures and versions --------------------------------------------------------------

    @asynccontextmanager
    async def _image(self, field: str | None) -> AsyncIterator[DecodedImage | None]:
        if field is None:
            yield None
        else:
            async with self._decoder.open(field) as image:
                yield image

    def _most_tokens(self, ask: GenerateRequest) -> int:
        return self.engine.facts.most_tokens(
            ask.prompt,
            has_image=ask.image is not None,
            max_new_tokens=ask.sampling.max_new_tokens,
        )

    async def _snapshot(self, ask: GenerateRequest) -> Snapshot:
        if ask.at_version is None:
            return self.history.snapshot
        return await self.history.snapshot_at(ask.at_version)

    async def _explain(self, row: GenerationRow, result: GenerationResult) -> list[CandidateView]:
        """The router's candidates, then edits that would pass the image filter if active."""
        found = list(result.decision.candidates)
        if row.image is not None and row.snapshot is not None:
            key = await self.engine.image_key(row.image)
            tau = self.engine.facts.tau
            near = self.history.inactive_near(key, tau, row.snapshot)
            found += [Candidate(i, cosine, 0.0, 0.0, "inactive") for i, cosine in near]
        return [CandidateView.of(each) for each in found]

    # --- read -------------------------------------------------------------------------------

    async def edit_events(self, edit_id: str) -> list[Event]:
        """An edit's history, oldest first."""
        log = self.history.log
        return await asyncio.to_thread(log.events, limit=self.history.head, edit_id=edit_id)

    async def events(self, *, after: int, limit: int) -> tuple[list[Event], bool]:
        """One page, oldest first, and whether there are more."""
        events = await asyncio.to_thread(self.history.log.events, after=after, limit=limit + 1)
        return events[:limit], len(events) > limit


def _draw(found: Attribution, image: DecodedImage, prompt: str) -> bytes:
    # Imported when first needed: what draws takes longer to load than most servers will ever need.
    from editing_core.attribution.pictures import draw_attribution

    return draw_attribution(found, image.pixels, prompt)
