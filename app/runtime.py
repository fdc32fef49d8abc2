"""The life of one server: opened, loading, ready, draining, closed.

`open` does what is quick and may refuse (lock, schema); `load` does what takes time (weights,
history) while the server already answers probes. One runtime belongs to one application.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Literal

from app.access.keyring import Keyring
from app.admission import Admission
from app.device.facts import ModelFacts
from app.device.messages import Reply
from app.device.supervision import DeviceProcess
from app.edits.queue import EditQueue
from app.engine import Device, InferenceEngine
from app.errors import (
    Draining,
    ServiceError,
    Starting,
    StartupError,
    StoreDamaged,
    StoreLost,
    StoreUnavailable,
)
from app.feedback.answers import RecentAnswers
from app.feedback.desk import FeedbackDesk
from app.firings import Firings
from app.history import History
from app.images import ImageDecoder
from app.locking import InstanceLock
from app.metrics import Metrics
from app.recovery import recover
from app.service import EditingService
from app.settings import Settings, is_loopback
from app.store import checkpoint
from app.store.database import Database
from app.store.dialects import dialect_of
from app.store.edit_log import EditLog
from app.store.feedback_log import FeedbackLog
from app.store.firing_log import FiringLog
from app.store.job_log import JobLog
from app.store.key_log import KeyLog
from app.store.webhook_log import WebhookLog
from app.tracing import Tracing
from app.webhook.outbox import Outbox
from app.webhook.sender import WebhookSender
from editing_core.types import ImageArray, PictureKey

if TYPE_CHECKING:
    from editing_core.editable_model import EditableModel

logger = logging.getLogger(__name__)

_WATCH_S = 2.0
"""How often the database is looked at: whether it is still there, and this server's."""

_LAST_WORDS_S = 2.0
"""How long requests that are cut short have to say so."""

MakeDevice = Callable[[Callable[[Reply], None]], Device]

State = Literal["starting", "ready", "failed", "draining", "closed"]


class _Stopped(Exception):
    """The server was told to stop while it measured."""


class Runtime:
    """Owns everything that must be opened and closed. Lives on the event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        locks: ExitStack,
        database: Database,
        keyring: Keyring,
        metrics: Metrics,
        *,
        model: EditableModel | None = None,
    ) -> None:
        self.settings = settings
        self.keyring = keyring
        self.metrics = metrics
        self.tracing = Tracing.of_environment()
        metrics.watch(self._measures)
        self._model = model
        self.state: State = "starting"
        self.failure: Exception | None = None
        self._locks = locks
        self._beside: list[asyncio.Task[None]] = []
        """What goes on beside requests, for as long as the server is open."""
        self._database = database
        self._decoder = ImageDecoder(settings.decode_workers, limit_s=settings.decode_timeout_s)
        self._engine: InferenceEngine | None = None
        self._loading: DeviceProcess | None = None
        self._service: EditingService | None = None
        self.parsing = asyncio.Lock()
        """Held while a large body is parsed: one thread at a time competes with the event loop."""
        self._requests = 0
        self._when_draining: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    def open(cls, settings: Settings, *, model: EditableModel | None = None) -> Runtime:
        """Take the data directory. Blocking. Raises `StartupError` naming what is in the way.

        With a `model`, that one is served, and the settings only name it.
        """
        where = dialect_of(settings.resolved_database_url, data_dir=settings.data_dir)
        if not where.exists():
            _require_keys(settings, has_keys=settings.admin_key is not None)
        metrics = Metrics()
        with ExitStack() as locks:
            locks.enter_context(InstanceLock.of_data_dir(settings.data_dir))
            locks.enter_context(where.lock())
            database = Database.open(
                where,
                migrate=settings.migrate,
                timeout_s=settings.store_timeout_s,
                on_done=metrics.stored,
            )
            locks.callback(database.close)
            keyring = _keyring(settings, database)
            return cls(settings, locks.pop_all(), database, keyring, metrics, model=model)

    async def load(self, *, resumes_edits: bool = True) -> None:
        """Load weights, recover history, start the engine, take up what was left pending.

        Without `resumes_edits` pending edits are left for the next server. A failure is kept and
        raised.
        """
        try:
            history, jobs, feedback, webhook = await self._load()
        except _Stopped:
            logger.info("stopped during the first start; the next one goes on with what is missing")
            return
        except Exception as error:
            self.state, self.failure = "failed", error
            raise
        settings, engine = self.settings, self._engine
        assert engine is not None
        self._service = EditingService(
            engine=engine,
            decoder=self._decoder,
            history=history,
            model_name=settings.model_name,
            default_editor=settings.editor or engine.facts.default_editor,
            refine_steps=settings.refine_steps,
            job_log=jobs,
            metrics=self.metrics,
            feedback=feedback,
            firings=Firings(FiringLog(self._database)),
            webhook=webhook,
            tracing=self.tracing,
            edit_wait_s=settings.edit_wait_s,
            edit_limit=settings.queue_limit,
        )
        if self.state == "starting":
            if resumes_edits:
                await self._service.queue.resume()
            beside = [self._watch_database(self._service.queue), self._service.firings.run()]
            if webhook is not None and resumes_edits:
                beside.append(webhook.run())
            self._beside = [asyncio.ensure_future(each) for each in beside]
            gc.freeze()  # edits stay as long as the server does
            self.state = "ready"

    async def _watch_database(self, queue: EditQueue) -> None:
        """Until the database is lost: then nothing is served or made any more."""
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                await asyncio.to_thread(self._database.require_ours)
            except StoreLost:
                queue.pause()
                return
            except (StoreUnavailable, StoreDamaged):  # logged there; whoever writes is told
                continue

    async def _load(self) -> tuple[History, JobLog, FeedbackDesk, WebhookSender | None]:
        """The engine first: what is stored may need its eyes."""
        settings = self.settings
        facts, device = await asyncio.to_thread(
            self._in_a_process if settings.engine == "process" else self._in_a_thread
        )
        engine = self._engine = InferenceEngine(
            facts,
            device,
            admission=Admission(requests=settings.queue_limit, tokens=settings.queue_tokens),
            refine_objective=settings.refine_objective,
        )
        engine.start()
        log, jobs = EditLog(self._database), JobLog(self._database)
        loop = asyncio.get_running_loop()

        def picture_key(image: ImageArray) -> PictureKey:
            return asyncio.run_coroutine_threadsafe(engine.picture_key(image), loop).result()

        # Nothing of what is read here is garbage, and the collector would look for it all the time.
        gc.disable()
        try:
            recovered = await asyncio.to_thread(
                recover,
                log,
                jobs,
                facts,
                picture_key,
                database=self._database,
                room=settings.edit_cache_mib * 2**20,
            )
            history = History(log, recovered, publish=engine.publish)
        finally:
            gc.enable()
        feedback = FeedbackDesk(
            FeedbackLog(self._database),
            answers=RecentAnswers(settings.answer_memory_mib * 2**20),
            decoder=self._decoder,
            history=history,
        )
        webhook = await asyncio.to_thread(self._webhook, history, feedback)
        return history, jobs, feedback, webhook

    def _webhook(self, history: History, desk: FeedbackDesk) -> WebhookSender | None:
        url = self.settings.webhook_url
        if url is None:
            return None
        told = self.metrics.told
        outbox = Outbox.open(
            WebhookLog(self._database, url),
            history=history,
            desk=desk,
            on_dropped=lambda: told("dropped"),
        )
        return WebhookSender(url, self.settings.webhook_key, outbox, on_attempt=told)

    def _in_a_thread(self) -> tuple[ModelFacts, MakeDevice]:
        # Imported here: a server whose model is elsewhere does without what runs it.
        from app.device.loading import load_model
        from app.device.thread import DeviceThread

        model = self._model
        if model is None:
            model = load_model(self.settings, notify=self._progress)
        make = partial(
            DeviceThread,
            model,
            rows_at_once=self.settings.batch_rows,
            tokens_at_once=self.settings.batch_tokens,
            beginnings_bytes=self.settings.prefix_cache_mib * 2**20,
        )
        return ModelFacts.of(model), make

    def _in_a_process(self) -> tuple[ModelFacts, MakeDevice]:
        if self._model is not None:
            raise StartupError("a model that is handed over can be served in a thread only")
        device = self._loading = DeviceProcess(
            self.settings, on_restart=self.metrics.engine_restarted
        )
        try:
            return device.load(), device.answering
        except StartupError:
            if self._is_ending:
                raise _Stopped from None
            raise

    def _progress(self, what: str, done: int, total: int) -> None:
        """Of the first start, on the loading thread: minutes of it must not hold up an exit."""
        if self._is_ending:
            raise _Stopped
        from app.device.loading import log_progress

        log_progress(what, done, total)

    @property
    def service(self) -> EditingService:
        """Raises `Starting` or `Draining` while there is none to use."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        assert self._service is not None
        return self._service

    @property
    def _is_ending(self) -> bool:
        return self.state in ("draining", "closed")

    def refusal(self) -> ServiceError | None:
        """Why requests are turned away now; None when those are served that need no model."""
        if self._is_ending:
            return Draining("This server is shutting down.", retry_after_s=5)
        if self.state == "failed":
            return Starting("The server could not start; its log says why.", retry_after_s=30)
        if self.state == "starting":
            return Starting("The model is being loaded.", retry_after_s=1)
        if self._database.lost is not None:
            return self._database.lost
        return None

    def unreadiness(self) -> ServiceError | None:
        """Why not all is served now; None when it is."""
        refusal = self.refusal()
        if refusal is None and self._engine is not None:
            refusal = self._engine.refusal
        return refusal

    def _measures(self) -> dict[str, float]:
        """The gauges of `app/metrics.py`; while there is no service, only whether it is ready."""
        if self._service is None or self._engine is None:
            return {"errata_ready": 0}
        history, webhook = self._service.history, self._service.webhook
        return {
            "errata_ready": float(self.unreadiness() is None),
            "errata_engine_up": float(self._engine.refusal is None),
            "errata_version": history.head,
            "errata_edits_active": len(history.snapshot.entries),
            "errata_edits_stale": history.count_stale(),
            "errata_edits_pending": self._service.queue.under_way,
            "errata_requests_waiting": self._engine.overload_status().waiting,
            "errata_jobs_waiting": self._engine.queued,
            "errata_webhook_behind": 0 if webhook is None else webhook.outbox.behind,
        }

    @property
    def is_alive(self) -> bool:
        return self._engine is None or self._engine.is_alive or self.state == "closed"

    # --- draining ---------------------------------------------------------------------------

    def request_began(self) -> None:
        self._requests += 1
        self._idle.clear()

    def request_ended(self) -> None:
        self._requests -= 1
        if self._requests == 0:
            self._idle.set()

    def when_draining(self, call: Callable[[], None]) -> None:
        """`call` is called when the server begins to drain."""
        self._when_draining.append(call)

    async def drain(self) -> None:
        """Turn new requests away and wait for the running ones, up to the timeout.

        Bodies that have not arrived are not waited for. What still runs at the end is answered 503
        `draining`. Edits that were answered 202 stop here, and go on at the next start.
        """
        self.state = "draining"
        if self._loading is not None and self._engine is None:
            await asyncio.to_thread(self._loading.stop)
        for call in self._when_draining:
            call()
        if self._service is not None:
            self._service.queue.pause()
        if await self._is_idle(self.settings.drain_timeout_s):
            return
        logger.warning("%d requests are cut short", self._requests)
        if self._engine is not None:
            self._engine.waits.end()
        if not await self._is_idle(_LAST_WORDS_S):
            logger.warning("%d requests do not end", self._requests)

    async def _is_idle(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        self.state = "closed"
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        if self._service is not None:
            await self._service.queue.close()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)
        if self._service is not None:
            await self._service.firings.flush()
        self._decoder.close()
        gc.unfreeze()
        await asyncio.to_thread(self._close_database)
        await asyncio.to_thread(self.tracing.close)
        self._locks.close()

    def _close_database(self) -> None:
        """Blocking. What is known by then is written down for the next start."""
        known = None
        if self._service is not None and self._database.lost is None:
            try:
                known = self._service.history.checkpoint(self._service.engine.facts)
            except ServiceError as error:  # it does not answer: the next start reads everything
                logger.warning("no checkpoint is written: %s", error)
        self._database.close()
        if known is not None:
            checkpoint.write(self._database.where, known)


def _keyring(settings: Settings, database: Database) -> Keyring:
    admin_key = settings.admin_key
    keyring = Keyring(
        KeyLog(database), admin_key=None if admin_key is None else admin_key.get_secret_value()
    )
    _require_keys(settings, has_keys=not keyring.is_open)
    return keyring


def _require_keys(settings: Settings, *, has_keys: bool) -> None:
    """Raises `StartupError` where other machines could reach a server that asks for no key."""
    if not has_keys and not is_loopback(settings.host):
        raise StartupError(
            f"{settings.host} is reachable from other machines, and this server has no API keys. "
            "Set ERRATA_ADMIN_KEY to a secret of 24 characters or more; or serve on 127.0.0.1 and "
            "make a first key with `errata keys create NAME --scope admin`."
        )
