"""One device thread behind a bounded queue. Nothing else touches the model.

A request takes a *ticket* before it does anything costly; tickets are what the queue is bounded
by. (An edit that outlives its request goes on without one; `app/edits/queue.py` counts those.)
Under one ticket it submits *jobs*, which the device thread runs one after another. A job is plain
data in and plain data out, with rows that each carry their own snapshot, so that a scheduler may
later run the rows of several jobs in one batch, or in a process of its own.

An encoding that takes long lets waiting jobs run in between. So that they notice nothing of it,
every job begins with gradients off, wherever it is begun; whichever needs them turns them on.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import Draining, QueueFull
from app.waiting import Waits
from app.words import ModelWords
from editing_core.attribution.attribute import Attribution, attribute
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import GenerationCancelled, NotFinite
from editing_core.refinement import ANSWERS, Refinement, Wanted
from editing_core.types import (
    EditArtifact,
    EditRequest,
    GenerationResult,
    ImageArray,
    OnProgress,
    TokenLogprob,
)

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
OnTokens = Callable[[int, str], None]

_SMOOTHING = 0.2
_FIRST_GUESS_S = 0.2


@dataclass(frozen=True, slots=True)
class OverloadStatus:
    """How busy the engine is. `wait_s` estimates how long a new request would wait."""

    waiting: int
    limit: int
    wait_s: float

    @property
    def is_full(self) -> bool:
        return self.waiting >= self.limit


@dataclass(slots=True)
class _Job(Generic[Result]):
    work: Callable[[], Result]
    cancelled: threading.Event
    future: Future[Result] = field(default_factory=Future)

    def begin(self) -> None:
        """Run it, unless its owner went away while it waited."""
        if self.future.set_running_or_notify_cancel():
            self._run()

    def _run(self) -> None:
        if self.cancelled.is_set():
            self.future.set_exception(GenerationCancelled("cancelled before it began"))
            return
        try:
            with torch.no_grad():
                result = self.work()
            self.future.set_result(result)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the job's owner
            self.future.set_exception(error)


class InferenceEngine:
    """Runs jobs on `model` in one thread. `start` it before use, `stop` it after.

    The async methods belong on the event loop's thread and never block it.
    """

    def __init__(
        self, model: EditableModel, *, queue_limit: int, refine_objective: str = ANSWERS
    ) -> None:
        self.model = model
        self.words = ModelWords.of(model.backbone)
        self.waits = Waits()
        """Once they are over, whatever waits for the device gets `Draining`."""
        self._refine_objective = refine_objective
        self._limit = queue_limit
        self.not_finite = 0
        """How many jobs the model gave no numbers for."""
        self._tickets = 0
        self._ticket_s = _FIRST_GUESS_S
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread. Blocks; safe to call twice."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        """Jobs that wait for the device; the one that runs is not among them."""
        return self._jobs.qsize()

    def overload_status(self) -> OverloadStatus:
        return OverloadStatus(self._tickets, self._limit, self._tickets * self._ticket_s)

    @contextmanager
    def ticket(self) -> Iterator[None]:
        """A place in the queue for as long as the block runs. Raises `QueueFull`."""
        status = self.overload_status()
        if status.is_full:
            raise QueueFull(
                f"{status.waiting} requests are waiting or running, and {status.limit} may.",
                retry_after_s=max(1, math.ceil(status.wait_s)),
            )
        self._tickets += 1
        ahead, began = self._tickets, time.perf_counter()
        try:
            yield
        finally:
            self._tickets -= 1
            share = (time.perf_counter() - began) / ahead
            self._ticket_s += _SMOOTHING * (share - self._ticket_s)

    async def encode(
        self, request: EditRequest, *, editor: str, on_progress: OnProgress | None = None
    ) -> EditArtifact:
        """Validate and encode one edit. Cancelling the awaiting task stops it between two stages.

        Between two stages the device does what waits meanwhile, so that an editor which takes
        minutes keeps nobody waiting longer than one of them. `on_progress(done, total, loss)` is
        called there, on the device thread. Raises the library's `RequestError`s.
        """
        cancelled = threading.Event()

        def between(done: int, total: int, loss: float) -> None:
            if on_progress is not None:
                on_progress(done, total, loss)
            if done < total:
                self._let_others_go_first()

        try:
            return await self._submit(
                lambda: self.model.encode(
                    request, editor=editor, is_cancelled=cancelled.is_set, on_progress=between
                ),
                cancelled,
            )
        finally:
            cancelled.set()

    async def rescope(self, artifact: EditArtifact, request: EditRequest) -> EditArtifact:
        """Validate, and make new keys for one edit. Raises the library's `RequestError`s."""
        return await self._submit(lambda: self.model.rescope(artifact, request))

    async def image_key(self, image: ImageArray) -> NDArray[np.float32]:
        return await self._submit(lambda: self.model.image_key(image))

    async def generate(
        self, rows: Sequence[GenerationRow], *, on_tokens: OnTokens | None = None
    ) -> list[GenerationResult]:
        """Answer every row. Cancelling the awaiting task stops the device within one step.

        `on_tokens(row, text)` is called on the device thread.
        """
        cancelled = threading.Event()
        try:
            return await self._submit(
                lambda: self.model.generate(
                    rows, on_tokens=on_tokens, is_cancelled=cancelled.is_set
                ),
                cancelled,
            )
        finally:
            cancelled.set()

    async def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, whatever the device does. Raises `ContextTooLong`."""
        return await asyncio.to_thread(self.model.text_ids, text)

    async def text_logprobs(self, ids: Sequence[int], *, top: int) -> list[TokenLogprob]:
        """The base model's log-probabilities of a text. Raises the library's `RequestError`s."""
        return await self._submit(lambda: self.model.text_logprobs(ids, top=top))

    async def attribute(self, image: ImageArray, prompt: str, *, token: int) -> Attribution:
        """Attribute one token. Cancelling the awaiting task stops the device within one chunk."""
        cancelled = threading.Event()
        try:
            return await self._submit(
                lambda: attribute(
                    self.model, image, prompt, token=token, is_cancelled=cancelled.is_set
                ),
                cancelled,
            )
        finally:
            cancelled.set()

    async def refine(self, edit_id: str, wanted: Sequence[Wanted], *, max_steps: int) -> Refinement:
        """Refine one expert. Cancelling the awaiting task stops the device within one step."""
        cancelled = threading.Event()
        try:
            return await self._submit(
                lambda: self.model.refine(
                    edit_id,
                    wanted,
                    max_steps=max_steps,
                    objective=self._refine_objective,
                    is_cancelled=cancelled.is_set,
                ),
                cancelled,
            )
        finally:
            cancelled.set()

    async def _submit(
        self, work: Callable[[], Result], cancelled: threading.Event | None = None
    ) -> Result:
        job = _Job(work, cancelled or threading.Event())
        self._jobs.put(job)
        try:
            async with self.waits.wait():
                return await asyncio.wrap_future(job.future)
        except TimeoutError as error:
            if not self.waits.is_over:  # the work's own
                raise
            raise Draining("This server is shutting down.", retry_after_s=5) from error
        except NotFinite as error:
            self.not_finite += 1
            logger.error("%s; %d times since the start", error.message, self.not_finite)
            raise
        finally:
            job.cancelled.set()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.begin()
            del job  # holds a picture
        logger.debug("device thread ends")

    def _let_others_go_first(self) -> None:
        """On the device thread, inside a job: run those that wait now, but none that come later."""
        for _ in range(self._jobs.qsize()):
            job = self._jobs.get()
            if job is None:  # told to stop: after this job, as it was going to be
                self._jobs.put(None)
                return
            job.begin()
