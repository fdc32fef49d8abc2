"""`POST /edits` from the request to its answer, and beyond it: edits that take long go on as jobs.

An edit that is not there after `wait_s` is written to the job log and answered 202. What then goes
on is the very work that was under way. From there it ends in one of three ways, each of them one
transaction under `History.lock`: committed, failed, cancelled. Until it has ended, every start of
the server takes it up again.
"""

from __future__ import annotations

import asyncio
import logging
import math

from app.catalogue import Catalogue
from app.creation import EditCreation
from app.engine import InferenceEngine
from app.errors import (
    Draining,
    EditCommitted,
    EditNotFound,
    InternalError,
    QueueFull,
    StoreUnavailable,
    as_service_error,
)
from app.history import Caller, History, now, to_the_end
from app.idempotency import IdempotencyKeys
from app.orders import IN_QUEUE, Answer, Order
from app.schemas.edits import EditCreate, EditView
from app.schemas.errors import ErrorDetail
from app.store.edit_log import StoredImage
from app.store.job_log import JobLog
from app.store.records import digest_of
from app.strict_json import canonical

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class EditJobs:
    """One per process; lives on the event loop's thread. `orders` is its own to change."""

    def __init__(
        self,
        *,
        creation: EditCreation,
        catalogue: Catalogue,
        engine: InferenceEngine,
        history: History,
        log: JobLog,
        orders: dict[str, Order],
        wait_s: float,
        limit: int,
    ) -> None:
        self._creation = creation
        self._catalogue = catalogue
        self._engine = engine
        self._history = history
        self._log = log
        self._orders = orders
        self._wait_s = wait_s
        self._limit = limit
        self._tasks: dict[str, asyncio.Task[Answer]] = {}
        self._turn = asyncio.Lock()
        self._keys = IdempotencyKeys(history.log, log, catalogue)
        self._is_paused = False

    # --- from the request to its answer -----------------------------------------------------

    async def create(
        self, draft: EditCreate, *, key: str | None, caller: Caller, patient: bool = False
    ) -> Answer:
        """Make an edit, or answer again what idempotency key `key` stands for.

        A `patient` caller waits for the end of the edit, however long it takes.
        """
        digest = digest_of(canonical(draft.model_dump()))
        with self._keys.claim(key, digest):
            answer = await self._keys.replay(key, digest)
            if answer is None:
                answer = await self._create(draft, key, digest, caller, patient)
        if patient and answer.status == 202:
            answer = await self._end_of(answer.edit_id)
        return answer

    async def _create(
        self, draft: EditCreate, key: str | None, digest: str, caller: Caller, patient: bool
    ) -> Answer:
        if len(self._orders) >= self._limit:
            raise QueueFull(
                f"{len(self._orders)} edits are waiting or being made, and {self._limit} may.",
                retry_after_s=max(1, math.ceil(self._wait_s)),
            )
        with self._engine.ticket():
            for edit_id in draft.supersedes:
                await self._catalogue.require_committed(edit_id, param="supersedes")
            order = await self._creation.admit(draft, key=key, request_digest=digest, caller=caller)
            self._orders[order.id] = order
            wait_s = None if patient else self._wait_s
            if wait_s == 0:
                await to_the_end(self._keep(order))
            else:
                task = self._start(order)
                if await self._is_in_time(order, task, wait_s):
                    return task.result()
                if not await to_the_end(self._keep(order)):
                    return await task
            return await self._catalogue.standing(order.id, is_replay=False)

    async def _is_in_time(
        self, order: Order, task: asyncio.Task[Answer], wait_s: float | None
    ) -> bool:
        try:
            await asyncio.wait({task}, timeout=wait_s)
        except asyncio.CancelledError:  # nobody is left to be answered
            self._stop(order)
            raise
        return task.done()

    async def _keep(self, order: Order) -> bool:
        """Write it down, so that it may be answered 202; False if it is over by now."""
        async with self._history.lock:
            if order.is_over:
                return False
            assert order.image is not None
            try:
                await asyncio.to_thread(self._log.add, order.job(), order.image)
            except Exception:
                self._stop(order)
                raise
            order.is_kept, order.image = True, None
        if self._is_paused:
            self._stop(order)
        elif order.id not in self._tasks:
            self._start(order)
        return True

    async def _end_of(self, edit_id: str) -> Answer:
        if (task := self._tasks.get(edit_id)) is not None:
            await asyncio.wait({task})
        answer = await self._catalogue.standing(edit_id, is_replay=True)
        if answer.status == 202:
            raise Draining("This server is shutting down.", retry_after_s=5)
        return answer

    # --- the work ---------------------------------------------------------------------------

    def _start(self, order: Order) -> asyncio.Task[Answer]:
        """Queue it. Orders are made one at a time, in the order of this call."""
        task = asyncio.ensure_future(self._run(order))
        self._tasks[order.id] = task

        def forget(ended: asyncio.Task[Answer]) -> None:
            del self._orders[order.id], self._tasks[order.id]
            if not ended.cancelled() and (error := ended.exception()) is not None:
                logger.debug("edit %s was not made: %r", order.id, error)

        task.add_done_callback(forget)
        return task

    async def _run(self, order: Order) -> Answer:
        async with self._turn:
            while True:
                try:
                    return await self._creation.make(order, await self._image(order))
                except Exception as error:
                    await to_the_end(self._fail(order, error))
                    if order.is_over:
                        raise
                order.progress = IN_QUEUE
                await asyncio.sleep(_RETRY_S)

    async def _image(self, order: Order) -> StoredImage:
        image = order.image or await asyncio.to_thread(self._log.image, order.id)
        if image is None:
            raise InternalError(
                "The stored picture of this edit is damaged, so it cannot be made.",
                hint="Send the request again, under a new Idempotency-Key.",
            )
        return image

    async def _fail(self, order: Order, error: Exception) -> None:
        """End it; unless it was promised and only the database did not answer: then it may be
        tried again."""
        async with self._history.lock:
            if order.is_over:
                return
            if order.is_kept and not await self._settle_failed(order.id, error, order.caller):
                return
            order.is_over = True

    async def _settle_failed(self, edit_id: str, error: Exception, caller: Caller) -> bool:
        told = as_service_error(error)
        if isinstance(told, StoreUnavailable):
            return False
        detail = ErrorDetail.of(told, caller.request_id).model_dump_json()
        try:
            await asyncio.to_thread(self._log.settle, edit_id, "failed", error=detail, at=now())
        except StoreUnavailable:
            return False
        return True

    def _stop(self, order: Order) -> None:
        """Work on it no more. If it is kept, it is still pending, and resumed at the next start."""
        order.is_over = True
        if (task := self._tasks.get(order.id)) is not None:
            task.cancel()
        else:
            del self._orders[order.id]

    # --- cancelled by hand ------------------------------------------------------------------

    async def cancel(self, edit_id: str) -> EditView:
        """Stop a pending edit for good. Idempotent; one that failed stays failed.

        Raises `EditCommitted` and `EditNotFound`.
        """
        await to_the_end(self._cancel(edit_id))
        return await self._catalogue.view(edit_id)

    async def _cancel(self, edit_id: str) -> None:
        history = self._history
        async with history.lock:
            if edit_id in history.ledger:
                version = history.ledger[edit_id].version
                raise EditCommitted(
                    f"The edit {edit_id} was committed as version {version}.", param="id"
                )
            job = await asyncio.to_thread(self._log.job, edit_id)
            if job is None:
                raise EditNotFound(f"There is no edit {edit_id!r}.", param="id")
            if job.state == "pending":
                await asyncio.to_thread(self._log.settle, edit_id, "cancelled", at=now())
                if (order := self._orders.get(edit_id)) is not None:
                    self._stop(order)

    # --- start and stop ---------------------------------------------------------------------

    async def resume(self) -> None:
        """Take up what an earlier process left pending, before anything new is asked for."""
        for job in await asyncio.to_thread(self._log.pending):
            try:
                order = Order.resumed(job)
            except ValueError as error:
                logger.exception("edit %s cannot be read", job.id)
                told = InternalError(f"What was asked for can no longer be read: {error}.")
                await self._settle_failed(job.id, told, Caller(job.request_id, job.created_by))
                continue
            self._orders[order.id] = order
            self._start(order)
        if self._orders:
            logger.info("resumed %d pending edits", len(self._orders))

    def pause(self) -> None:
        """Stop what was answered 202, so that requests that still wait get their turn."""
        self._is_paused = True
        for order in list(self._orders.values()):
            if order.is_kept:
                self._stop(order)

    async def close(self) -> None:
        """Stop everything, and wait until it has."""
        self._is_paused = True
        for order in list(self._orders.values()):
            self._stop(order)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        await self._history.settled()
