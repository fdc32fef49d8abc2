"""The life of one server: opened, loading, ready, draining, closed.

`open` does what is quick and may refuse (lock, schema); `load` does what takes time (weights,
history) while the server already answers probes. One runtime belongs to one application.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from app.engine import InferenceEngine
from app.errors import Draining, ServiceError, Starting
from app.history import History
from app.images import ImageDecoder
from app.locking import InstanceLock
from app.recovery import recover
from app.service import EditingService
from app.settings import Settings
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from editing_core.editable_model import EditableModel

logger = logging.getLogger(__name__)

_SERVED_EDITORS = ("visedit",)
"""Loaded beside the default one, where the checkpoint has them."""

State = Literal["starting", "ready", "failed", "draining", "closed"]


class Runtime:
    """Owns everything that must be opened and closed. Lives on the event loop's thread."""

    def __init__(self, settings: Settings, lock: InstanceLock, database: Database) -> None:
        self.settings = settings
        self.state: State = "starting"
        self.failure: Exception | None = None
        self._lock = lock
        self._database = database
        self._decoder = ImageDecoder(settings.decode_workers)
        self._engine: InferenceEngine | None = None
        self._service: EditingService | None = None
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    def open(cls, settings: Settings) -> Runtime:
        """Take the data directory. Blocking. Raises `StartupError` naming what is in the way."""
        lock = InstanceLock(settings.data_dir)
        try:
            database = Database.open(
                settings.resolved_database_url,
                migrate=settings.migrate,
                timeout_s=settings.store_timeout_s,
            )
        except BaseException:
            lock.release()
            raise
        return cls(settings, lock, database)

    async def load(self, *, resumes_edits: bool = True) -> None:
        """Load weights, recover history, start the engine, take up what was left pending.

        Without `resumes_edits` pending edits are left for the next server. A failure is kept and
        raised.
        """
        try:
            model, history, jobs = await asyncio.to_thread(self._load)
        except Exception as error:
            self.state, self.failure = "failed", error
            raise
        self._engine = InferenceEngine(
            model,
            queue_limit=self.settings.queue_limit,
            refine_objective=self.settings.refine_objective,
        )
        self._engine.start()
        self._service = EditingService(
            engine=self._engine,
            decoder=self._decoder,
            history=history,
            model_name=self.settings.model_name,
            default_editor=self.settings.editor,
            refine_steps=self.settings.refine_steps,
            job_log=jobs,
            edit_wait_s=self.settings.edit_wait_s,
            edit_limit=self.settings.queue_limit,
        )
        if self.state == "starting":
            if resumes_edits:
                await self._service.jobs.resume()
            self.state = "ready"

    def _load(self) -> tuple[EditableModel, History, JobLog]:
        import torch

        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)
        model = EditableModel.load(
            self.settings.model,
            device=self.settings.device,
            dtype=self.settings.dtype,
            where_there=_SERVED_EDITORS,
        )
        log, jobs = EditLog(self._database), JobLog(self._database)
        return model, History(log, recover(log, jobs, model)), jobs

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
        if self._engine is not None and not self._engine.is_alive:
            return Starting("The device thread has ended; restart the server.", retry_after_s=30)
        return None

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

    async def drain(self) -> None:
        """Turn new requests away and wait for the running ones, up to the timeout.

        Edits that were answered 202 stop here, and go on at the next start.
        """
        self.state = "draining"
        if self._service is not None:
            self._service.jobs.pause()
        try:
            async with asyncio.timeout(self.settings.drain_timeout_s):
                await self._idle.wait()
        except TimeoutError:
            logger.warning("%d requests were cut short", self._requests)

    async def close(self) -> None:
        self.state = "closed"
        if self._service is not None:
            await self._service.jobs.close()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)
        self._decoder.close()
        await asyncio.to_thread(self._database.close)
        self._lock.release()
