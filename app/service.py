"""What the server can do, put together: edits are made and switched, questions answered.

Edits have rooms of their own (`app/edits`), which routes enter directly, and so have questions
(`app/answering.py`). Lives on the event loop's
thread; what blocks runs elsewhere (`app/engine.py`, worker threads).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.answering import Answering
from app.edits.catalogue import Catalogue
from app.edits.create import EditCreation
from app.edits.edit import Edit, Work
from app.edits.pictures import EditPictures
from app.edits.queue import EditQueue
from app.edits.reach import ScopePreview
from app.edits.scope import Scoping
from app.edits.switch import Switching
from app.edits.trial import EditMaker
from app.engine import InferenceEngine
from app.errors import as_service_error
from app.feedback.desk import FeedbackDesk
from app.firings import Firings
from app.history import History, now
from app.images import DecodedImage, ImageDecoder, data_uri
from app.metrics import Metrics
from app.schemas.attributions import AttributionRequest, AttributionView
from app.schemas.generation import GenerateRequest, GenerateView
from app.store.job_log import JobLog
from app.store.ledger import Change
from app.store.records import ListedEvent
from app.tracing import Tracing
from app.verification import StoryTeller
from app.webhook.sender import WebhookSender
from editing_core.errors import RequestError

if TYPE_CHECKING:
    from editing_core.attribution.attribute import Attribution


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
        firings: Firings,
        webhook: WebhookSender | None,
        tracing: Tracing,
        edit_wait_s: float,
        edit_limit: int,
    ) -> None:
        self.engine = engine
        self.history = history
        self.model_name = model_name
        self.default_editor = default_editor
        self.created = int(time.time())
        """When it could first be asked, in seconds since 1970."""
        self._decoder = decoder
        self._metrics = metrics
        self.feedback = feedback
        self.firings = firings
        self.webhook = webhook
        self._tracing = tracing
        self.answering = Answering(
            engine=engine,
            decoder=decoder,
            history=history,
            metrics=metrics,
            recent=feedback.answers,
            firings=firings,
            tracing=tracing,
        )
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
        self.preview = ScopePreview(engine=engine, catalogue=self.catalogue)
        self.pictures = EditPictures(history=history, catalogue=self.catalogue, decoder=decoder)
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
        return GenerateView.of(
            await self.answering.answer(ask.question, on_tokens=on_tokens), model=self.model_name
        )

    async def attribute(self, ask: AttributionRequest) -> AttributionView:
        """Explain one token of the base model's answer. Drawn in a worker thread."""
        with self.engine.ticket():
            async with self._decoder.open(ask.image) as image:
                found = await self.engine.attribute(image.pixels, ask.prompt, token=ask.token)
                drawn = await asyncio.to_thread(_draw, found, image, ask.prompt)
        return AttributionView.of(found, picture=data_uri(drawn))

    # --- what is counted of it --------------------------------------------------------------

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
        self._tracing.record("errata.edit", work.watch.laps, {"errata.outcome": outcome})
        if self.webhook is not None and outcome in ("refused", "failed"):
            self.webhook.outbox.refused(f"refusal-{work.edit.id}", _refusal(work, ended))

    # --- read -------------------------------------------------------------------------------

    async def edit_events(self, edit_id: str) -> list[ListedEvent]:
        """An edit's history, oldest first."""
        return await asyncio.to_thread(self.history.log.events_of, edit_id)

    async def changes(self, version: int, *, after: int, limit: int) -> tuple[list[Change], bool]:
        """One page of what an event changed, and whether there is more."""
        self.history.require_version(version, param="version")
        log = self.history.log
        changes = await asyncio.to_thread(log.changes, version, after=after, limit=limit + 1)
        return changes[:limit], len(changes) > limit

    async def events(self, *, after: int, limit: int) -> tuple[list[ListedEvent], bool]:
        """One page, oldest first, and whether there are more."""
        events = await asyncio.to_thread(self.history.log.events, after=after, limit=limit + 1)
        return events[:limit], len(events) > limit


def _refusal(work: Work, ended: asyncio.Task[Edit]) -> dict[str, Any]:
    """What is told of an edit that was not made."""
    error = ended.exception()
    assert isinstance(error, Exception)
    told = as_service_error(error)
    names = ("message", "code", "hint")
    return {
        "at": now(),
        "edit_id": work.edit.id,
        "actor": work.caller.actor,
        "request_id": work.caller.request_id,
        "prompt": work.order.prompt,
        "target": work.order.target,
        "error": {name: getattr(told, name) for name in names},
    }


def _draw(found: Attribution, image: DecodedImage, prompt: str) -> bytes:
    # Imported when first needed: what draws takes longer to load than most servers will ever need.
    from editing_core.attribution.pictures import draw_attribution

    return draw_attribution(found, image.pixels, prompt)
