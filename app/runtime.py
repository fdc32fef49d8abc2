"""The life of one server: opened, loading, ready, draining, closed.

`open` does what is quick and may refuse (lock, schema); `load` does what takes time (weights,
history) while the server already answers probes. One runtime belongs to one application.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Literal

from app.access.keyring import Keyring
from app.admission import Admission
from app.device.facts import ModelFacts
from app.device.thread import DeviceThread
from app.edits.queue import EditQueue
from app.engine import InferenceEngine
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
from app.history import History
from app.images import ImageDecoder
from app.locking import InstanceLock
from app.metrics import Metrics
from app.recovery import recover
from app.service import EditingService
from app.settings import Settings, is_loopback
from app.store.database import Database
from app.store.dialects.sqlite import database_file
from app.store.edit_log import EditLog
from app.store.feedback_log import FeedbackLog
from app.store.job_log import JobLog
from app.store.key_log import KeyLog
from editing_core.config import Placement
from editing_core.editable_model import EditableModel
from editing_core.types import Notify

logger = logging.getLogger(__name__)

_SERVED_EDITORS = ("visedit", "fitted")
"""Loaded beside the default one, where the checkpoint has them."""

_PROGRESS_LINES = 4
"""How often a measurement of the first start is heard of in the log."""

_WATCH_S = 2.0
"""How often the database is looked at: whether it is still there, and this server's."""

_LAST_WORDS_S = 2.0
"""How long requests that are cut short have to say so."""

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
        metrics.watch(self._measures)
        self._model = model
        self.state: State = "starting"
        self.failure: Exception | None = None
        self._locks = locks
        self._watch: asyncio.Task[None] | None = None
        self._database = database
        self._decoder = ImageDecoder(settings.decode_workers, limit_s=settings.decode_timeout_s)
        self._engine: InferenceEngine | None = None
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
        file = database_file(settings.resolved_database_url)
        if not file.exists():
            _require_keys(settings, has_keys=settings.admin_key is not None)
        metrics = Metrics()
        with ExitStack() as locks:
            locks.enter_context(InstanceLock.of_data_dir(settings.data_dir))
            locks.enter_context(InstanceLock.of_database(file))
            database = Database.open(
                settings.resolved_database_url,
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
            model, history, jobs, feedback = await asyncio.to_thread(self._load)
        except _Stopped:
            logger.info("stopped during the first start; the next one goes on with what is missing")
            return
        except Exception as error:
            self.state, self.failure = "failed", error
            raise
        settings, facts = self.settings, ModelFacts.of(model)
        self._engine = InferenceEngine(
            facts,
            partial(
                DeviceThread,
                model,
                rows_at_once=settings.batch_rows,
                tokens_at_once=settings.batch_tokens,
            ),
            admission=Admission(requests=settings.queue_limit, tokens=settings.queue_tokens),
            refine_objective=settings.refine_objective,
        )
        self._engine.start()
        self._service = EditingService(
            engine=self._engine,
            decoder=self._decoder,
            history=history,
            model_name=settings.model_name,
            default_editor=settings.editor or facts.default_editor,
            refine_steps=settings.refine_steps,
            job_log=jobs,
            metrics=self.metrics,
            feedback=feedback,
            edit_wait_s=settings.edit_wait_s,
            edit_limit=settings.queue_limit,
        )
        if self.state == "starting":
            if resumes_edits:
                await self._service.queue.resume()
            self._watch = asyncio.ensure_future(self._watch_database(self._service.queue))
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

    def _load(self) -> tuple[EditableModel, History, JobLog, FeedbackDesk]:
        model = self._model
        if model is None:
            model = load_model(self.settings, notify=self._progress)
        log, jobs = EditLog(self._database), JobLog(self._database)
        recovered = recover(
            log, jobs, ModelFacts.of(model), model.picture_key, database=self._database
        )
        history = History(log, recovered)
        feedback = FeedbackDesk(
            FeedbackLog(self._database),
            answers=RecentAnswers(self.settings.answer_memory_mib * 2**20),
            decoder=self._decoder,
            history=history,
        )
        return model, history, jobs, feedback

    def _progress(self, what: str, done: int, total: int) -> None:
        """Of the first start, on the loading thread: minutes of it must not hold up an exit."""
        if self.state in ("draining", "closed"):
            raise _Stopped
        step = max(1, total // _PROGRESS_LINES)
        if done % step == 0 or done == total:
            logger.info("first start: %s, %d of %d", what, done, total)

    @property
    def service(self) -> EditingService:
        """Raises `Starting` or `Draining` while there is none to use."""
        refusal = self.refusal()
        if refusal is not None:
            raise refusal
        assert self._service is not None
        return self._service

    def refusal(self) -> ServiceError | None:
        """Why requests are turned away now; None when they are served."""
        if self.state in ("draining", "closed"):
            return Draining("This server is shutting down.", retry_after_s=5)
        if self.state == "failed":
            return Starting("The server could not start; its log says why.", retry_after_s=30)
        if self.state == "starting":
            return Starting("The model is being loaded.", retry_after_s=1)
        if self._database.lost is not None:
            return self._database.lost
        if self._engine is not None and not self._engine.is_alive:
            return Starting("The device thread has ended; restart the server.", retry_after_s=30)
        return None

    def _measures(self) -> dict[str, float]:
        """The gauges of `app/metrics.py`; while there is no service, only whether it is ready."""
        refusal = self.refusal()
        if self._service is None or self._engine is None:
            return {"errata_ready": 0}
        history = self._service.history
        return {
            "errata_ready": float(refusal is None),
            "errata_version": history.head,
            "errata_edits_active": len(history.snapshot.entries),
            "errata_edits_stale": history.count_stale(),
            "errata_edits_pending": self._service.queue.under_way,
            "errata_requests_waiting": self._engine.overload_status().waiting,
            "errata_jobs_waiting": self._engine.queued,
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
        if self._watch is not None:
            self._watch.cancel()
        if self._service is not None:
            await self._service.queue.close()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)
        self._decoder.close()
        await asyncio.to_thread(self._database.close)
        self._locks.close()


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


def load_model(
    settings: Settings, *, parts: Path | None = None, notify: Notify | None = None
) -> EditableModel:
    """The model that these settings name, measured first where nothing was trained for it.

    `parts` is another folder for what is measured than the settings'. Says in the log which editor
    is the default and why. Raises `StartupError` where the model cannot run as it should, and what
    `EditableModel.load` raises.
    """
    import torch

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        Placement.resolve(settings.device, settings.dtype, settings.quantization)
    except (ValueError, RuntimeError) as error:
        raise StartupError(str(error)) from error
    model = EditableModel.load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        revision=settings.revision,
        clip=settings.clip,
        questions=settings.question_encoder,
        eyes=settings.eyes,
        trust_remote_code=settings.trust_remote_code,
        editors=None if settings.editor is None else (settings.editor,),
        where_there=_SERVED_EDITORS,
        parts=parts or settings.parts_dir,
        notify=notify,
    )
    router = model.router
    logger.info("image keys are made by %s, tau %.4f", router.image_key_model, router.tau)
    if model.eyes_fingerprint:
        logger.info("pictures that the CLIP does not know are keyed by %s", model.eyes_fingerprint)
    if model.questions is not None:
        logger.info("questions are compared by the encoder %s", model.questions.fingerprint)
    if settings.editor is not None:
        logger.info("the default editor is %s: it is the one that was set", settings.editor)
    elif model.default_editor is not None:
        logger.info("the default editor is %s: the first that fits", model.default_editor)
    else:
        logger.warning("no editor fits this model: it answers, and edits are refused")
    return model
