"""`POST /edits` from the order to its answer, and beyond it: edits that take long outlive requests.

An edit that is not there after `wait_s` is written to the job log and answered 202. What then goes
on is the very work that was under way. From there it ends in one of three ways, each of them one
transaction under `History.lock`: committed, failed, cancelled. Until it has ended, every start of
the server takes it up again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.edits.catalogue import Catalogue, require_same
from app.edits.create import EditCreation
from app.edits.edit import Answer, Edit, Order, Progress, Work
from app.engine import InferenceEngine
from app.errors import (
    Draining,
    EditCommitted,
    EditNotFound,
    EngineRestarting,
    IdempotencyInProgress,
    InternalError,
    QueueFull,
    StoreUnavailable,
    as_service_error,
)
from app.history import Caller, History, now, to_the_end
from app.store.job_log import JobLog
from app.store.records import IdempotencyKey, StoredImage

logger = logging.getLogger(__name__)

_RETRY_S = 1.0

OnEnd = Callable[[Work, asyncio.Task[Edit]], None]


class EditQueue:
    """One per process; lives on the event loop's thread. `under_way` is its own to change."""

    def __init__(
        self,
        *,
        creation: EditCreation,
        catalogue: Catalogue,
        engine: InferenceEngine,
        history: History,
        log: JobLog,
        under_way: dict[str, Work],
        wait_s: float,
        limit: int,
        on_end: OnEnd = lambda _work, _ended: None,
    ) -> None:
        """`on_end` is called when work on an edit ends, however it does."""
        self._creation = creation
        self._catalogue = catalogue
        self._engine = engine
        self._history = history
        self._log = log
        self._under_way = under_way
        self._wait_s = wait_s
        self._limit = limit
        self._on_end = on_end
        self._tasks: dict[str, asyncio.Task[Edit]] = {}
        self._turn = asyncio.Lock()
        self._claimed: dict[IdempotencyKey, str] = {}
        self._is_paused = False

    @property
    def under_way(self) -> int:
        """Edits that wait or are being made."""
        return len(self._under_way)

    # --- from the order to its answer -------------------------------------------------------

    async def create(
        self, order: Order, image: str, *, key: str | None, caller: Caller, patient: bool = False
    ) -> Answer:
        """Make an edit, or answer again what idempotency key `key` stands for.

        `image` is the request's field. A `patient` caller waits for the end of the edit, however
        long it takes.
        """
        digest = await asyncio.to_thread(order.digest, image)  # it reads every byte of the picture
        own = None if key is None else IdempotencyKey(key, caller.key_id)
        with self._claim(own, digest):
            answer = None if own is None else await self._catalogue.replay(own, digest)
            if answer is None:
                with self._place():
                    work = await self._admit(order, image, own, digest, caller)
                    answer = Answer(await self._done_or_kept(work, patient))
        if patient and answer.status == 202:
            answer = await self._end_of(answer.edit.id)
        return answer

    @contextmanager
    def _claim(self, key: IdempotencyKey | None, digest: str) -> Iterator[None]:
        """One request at a time with each key; a key of None is no key."""
        if key is None:
            yield
            return
        if (running := self._claimed.get(key)) is not None:
            require_same(running, digest)
            raise IdempotencyInProgress("A request with this Idempotency-Key is still running.")
        self._claimed[key] = digest
        try:
            yield
        finally:
            del self._claimed[key]

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the edits, and one among the requests, for as long as the block runs."""
        if len(self._under_way) >= self._limit:
            raise QueueFull(
                f"{len(self._under_way)} edits are waiting or being made, and {self._limit} may.",
                retry_after_s=max(1, math.ceil(self._wait_s)),
            )
        with self._engine.ticket():
            yield

    async def _admit(
        self,
        order: Order,
        image: str,
        key: IdempotencyKey | None,
        digest: str,
        caller: Caller,
    ) -> Work:
        order = order.tidy()
        for edit_id in order.supersedes:
            await self._catalogue.require_committed(edit_id, param="supersedes")
            await self._catalogue.require_own(edit_id, caller, param="supersedes")
        edit, stored, watch = await self._creation.admit(order, image, caller)
        work = Work(edit, order, caller, key, digest, stored, watch=watch)
        self._under_way[edit.id] = work
        return work

    async def _done_or_kept(self, work: Work, patient: bool) -> Edit:
        """The edit once it is made; or as it stands, if that takes longer than is waited for."""
        wait_s = None if patient else self._wait_s
        if wait_s == 0:
            await to_the_end(self._keep(work))
        else:
            task = self._start(work)
            if await self._is_in_time(work, task, wait_s):
                return task.result()
            if not await to_the_end(self._keep(work)):
                return await task
        return await self._catalogue.view(work.edit.id)

    async def _is_in_time(self, work: Work, task: asyncio.Task[Edit], wait_s: float | None) -> bool:
        try:
            await asyncio.wait({task}, timeout=wait_s)
        except asyncio.CancelledError:  # nobody is left to be answered
            self._stop(work)
            raise
        return task.done()

    async def _keep(self, work: Work) -> bool:
        """Write it down, so that it may be answered 202; False if it is over by now."""
        async with self._history.lock:
            if work.is_over:
                return False
            assert work.image is not None
            try:
                await asyncio.to_thread(self._log.add, work.job(), work.image)
            except Exception:
                self._stop(work)
                raise
            work.is_kept, work.image = True, None
        if self._is_paused:
            self._stop(work)
        elif work.edit.id not in self._tasks:
            self._start(work)
        return True

    async def _end_of(self, edit_id: str) -> Answer:
        if (task := self._tasks.get(edit_id)) is not None:
            await asyncio.wait({task})
        answer = Answer(await self._catalogue.view(edit_id), is_replay=True)
        if answer.status == 202:
            raise Draining("This server is shutting down.", retry_after_s=5)
        return answer

    # --- the work ---------------------------------------------------------------------------

    def _start(self, work: Work) -> asyncio.Task[Edit]:
        """Queue it. Edits are made one at a time, in the order of this call."""
        task = asyncio.ensure_future(self._run(work))
        self._tasks[work.edit.id] = task

        def forget(ended: asyncio.Task[Edit]) -> None:
            del self._under_way[work.edit.id], self._tasks[work.edit.id]
            self._on_end(work, ended)
            if not ended.cancelled() and (error := ended.exception()) is not None:
                logger.debug("edit %s was not made: %r", work.edit.id, error)

        task.add_done_callback(forget)
        return task

    async def _run(self, work: Work) -> Edit:
        async with self._turn:
            while True:
                try:
                    return await self._creation.make(work, await self._image(work))
                except Exception as error:
                    await to_the_end(self._fail(work, error))
                    if work.is_over:
                        raise
                    wait_s = getattr(error, "retry_after_s", None) or _RETRY_S
                work.has_come_to(Progress("queue"))
                await asyncio.sleep(wait_s)

    async def _image(self, work: Work) -> StoredImage:
        image = work.image or await asyncio.to_thread(self._log.image, work.edit.id)
        if image is None:
            raise InternalError(
                "The stored picture of this edit is damaged, so it cannot be made.",
                hint="Send the request again, under a new Idempotency-Key.",
            )
        return image

    async def _fail(self, work: Work, error: Exception) -> None:
        """End it; unless it was promised, and only the database did not answer, or the engine:
        then it may be tried again."""
        async with self._history.lock:
            if work.is_over:
                return
            if work.is_kept and not await self._settle_failed(work.edit.id, error, work.caller):
                return
            work.is_over = True

    async def _settle_failed(self, edit_id: str, error: Exception, caller: Caller) -> bool:
        told = as_service_error(error)
        if isinstance(told, StoreUnavailable | EngineRestarting):
            return False
        detail = json.dumps(told.fields(caller.request_id), ensure_ascii=False)
        try:
            await asyncio.to_thread(self._log.settle, edit_id, "failed", error=detail, at=now())
        except StoreUnavailable:
            return False
        return True

    def _stop(self, work: Work) -> None:
        """Work on it no more. If it is kept, it is still pending, and resumed at the next start."""
        work.is_over = True
        if (task := self._tasks.get(work.edit.id)) is not None:
            task.cancel()
        else:
            del self._under_way[work.edit.id]

    # --- cancelled by hand ------------------------------------------------------------------

    async def cancel(self, edit_id: str) -> Edit:
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
                if (work := self._under_way.get(edit_id)) is not None:
                    self._stop(work)

    # --- start and stop ---------------------------------------------------------------------

    async def resume(self) -> None:
        """Take up what an earlier process left pending, before anything new is asked for."""
        for job in await asyncio.to_thread(self._log.pending):
            try:
                work = Work.resumed(job)
            except ValueError as error:
                logger.exception("edit %s cannot be read", job.id)
                told = InternalError(f"What was asked for can no longer be read: {error}.")
                await self._settle_failed(job.id, told, Caller(job.request_id, job.created_by))
                continue
            self._under_way[work.edit.id] = work
            self._start(work)
        if self._under_way:
            logger.info("resumed %d pending edits", len(self._under_way))

    def pause(self) -> None:
        """Stop what was answered 202, so that requests that still wait get their turn."""
        self._is_paused = True
        for work in list(self._under_way.values()):
            if work.is_kept:
                self._stop(work)

    async def close(self) -> None:
        """Stop everything, and wait until it has."""
        self._is_paused = True
        for work in list(self._under_way.values()):
            self._stop(work)
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        await self._history.settled()
