"""The device thread: questions in one running batch, and tasks between its steps.

    collect what came in  ->  a turn of the rows  ->  one task  ->  a turn of edits' rows  ->  ...

A task (an edit encoded, refined; a picture looked at) has the device to itself. One that takes
long asks between its passes whether it was cancelled; there the rows get time, so that streams go
on, and what is shorter than an edit goes first. What needs no turn is answered beside it, on
threads of its own.

What edits need comes behind what people ask: its passes are small, its rows run apart from
people's, and after each pass people's rows get several times as long as it took (`EDITS_WAIT`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from app.device.messages import (
    Aside,
    Attribute,
    Begun,
    Cancel,
    Decide,
    Done,
    EditTask,
    Encode,
    Failed,
    Generate,
    Judge,
    Look,
    Message,
    Progress,
    Publish,
    Refine,
    Reply,
    Rescope,
    Screen,
    Survey,
    Task,
    Tokenise,
    Validate,
)
from app.device.reach import look
from app.device.rows import RowScheduler
from app.errors import EngineFailed
from editing_core.attribution.attribute import attribute
from editing_core.editable_model import EditableModel

logger = logging.getLogger(__name__)

EDITS_WAIT = 5
"""After a pass for an edit, rows of people get so many times as long as it took, while there are
any: edits then take a sixth of the device."""

PASS_TOKENS = 512
"""What a pass that routes or prefills for an edit takes at once, padding counted."""

_BESIDE = 2
"""Threads for what needs no turn."""


class DeviceThread:
    """Runs requests on `model`. `reply` is called on its threads and must not raise."""

    def __init__(
        self,
        model: EditableModel,
        reply: Callable[[Reply], None],
        *,
        rows_at_once: int,
        tokens_at_once: int,
        beginnings_bytes: int = 0,
    ) -> None:
        self.model = model
        self._reply = reply
        self._inbox: queue.SimpleQueue[Generate | Task | Cancel | None] = queue.SimpleQueue()
        self._rows = RowScheduler(
            model,
            reply,
            rows_at_once=rows_at_once,
            tokens_at_once=tokens_at_once,
            beginnings_bytes=beginnings_bytes,
        )
        self._behind = RowScheduler(
            model,
            reply,
            rows_at_once=rows_at_once,
            tokens_at_once=tokens_at_once,
            prefill_tokens=PASS_TOKENS,
        )
        """Rows that edits ask for."""
        self._tasks: deque[Task] = deque()
        self._under_way: list[int] = []
        """Tasks that have begun; the later ones run between two passes of the earlier."""
        self._cancelled: set[int] = set()
        self._stops = False
        self._pass_began = 0.0
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._beside = ThreadPoolExecutor(_BESIDE, thread_name_prefix="beside-the-device")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread. Blocks; safe to call twice."""
        if self._thread.is_alive():
            self._inbox.put(None)
            self._thread.join()
        self._beside.shutdown()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def refusal(self) -> EngineFailed | None:
        """Why nothing can be asked; None where it can."""
        if self.is_alive:
            return None
        return EngineFailed("The device thread has ended.", retry_after_s=30)

    def post(self, message: Message) -> None:
        """Hand a message over. From any thread."""
        if isinstance(message, Aside):
            self._beside.submit(self._answer_aside, message)
        elif not isinstance(message, Publish):  # snapshots come with the rows
            self._inbox.put(message)

    @property
    def begun(self) -> frozenset[int]:
        """Requests that it has begun and not ended. From any thread."""
        return self._rows.begun | self._behind.begun | frozenset(self._under_way)

    # --- beside it --------------------------------------------------------------------------

    def _answer_aside(self, aside: Aside) -> None:
        try:
            self._reply(Done(aside.id, self._found(aside)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the sender
            self._reply(Failed(aside.id, error))

    def _found(self, aside: Aside) -> object:
        match aside:
            case Validate():
                self.model.validate(aside.request, editor=aside.editor)
                return None
            case Tokenise():
                return self.model.text_ids(aside.text)
            case Survey():
                return look(
                    self.model,
                    aside.wordings,
                    aside.not_for,
                    questions=aside.questions,
                    limit=aside.limit,
                )

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._stops and self._is_idle):
            self._collect(waits=self._is_idle)
            self._rows.turn()
            if self._tasks:
                task = self._next_task()
                self._perform(task)
                self._give_rows_their_share(task)
            self._work_behind()
        logger.debug("device thread ends")

    @property
    def _is_idle(self) -> bool:
        return not self._tasks and not self._rows.is_busy and not self._behind.is_busy

    def _collect(self, *, waits: bool = False) -> None:
        """Take in what came; `waits` for the first of it."""
        try:
            while True:
                message = self._inbox.get(block=waits)
                waits = False
                if message is None:
                    self._stops = True
                elif isinstance(message, Cancel):
                    self._cancel(message.id)
                elif isinstance(message, Generate):
                    (self._behind if message.for_edit else self._rows).add(message)
                else:
                    self._tasks.append(message)
        except queue.Empty:
            return

    def _cancel(self, request_id: int) -> None:
        self._rows.cancel(request_id)
        self._behind.cancel(request_id)
        self._tasks = deque(task for task in self._tasks if task.id != request_id)
        if request_id in self._under_way:
            self._cancelled.add(request_id)

    # --- tasks ------------------------------------------------------------------------------

    def _next_task(self) -> Task:
        """The first that is no part of an edit, or else the first."""
        for task in self._tasks:
            if not isinstance(task, EditTask):
                self._tasks.remove(task)
                return task
        return self._tasks.popleft()

    def _perform(self, task: Task) -> None:
        self._under_way.append(task.id)
        self._reply(Begun(task.id))
        self._pass_began = time.perf_counter()
        try:
            # Wherever it is begun; what needs gradients turns them on.
            with torch.no_grad():
                result = self._result(task)
            self._reply(Done(task.id, result))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the sender
            self._reply(Failed(task.id, error))
        finally:
            self._under_way.remove(task.id)
            self._cancelled.discard(task.id)

    def _result(self, task: Task) -> object:
        def is_cancelled() -> bool:
            self._between_passes(task)
            return task.id in self._cancelled

        def on_progress(done: int, total: int, loss: float) -> None:
            self._reply(Progress(task.id, done, total, loss))

        match task:
            case Encode():
                return self.model.encode(
                    task.request,
                    editor=task.editor,
                    is_cancelled=is_cancelled,
                    on_progress=on_progress,
                )
            case Rescope():
                return self.model.rescope(task.artifact, task.request)
            case Refine():
                return self.model.refine(
                    task.edit_id,
                    task.wanted,
                    max_steps=task.max_steps,
                    objective=task.objective,
                    is_cancelled=is_cancelled,
                )
            case Decide():
                return self.model.decide(
                    task.rows, tokens_at_once=PASS_TOKENS, is_cancelled=is_cancelled
                )
            case Screen():
                return self.model.may_mean(task.questions, task.edits, is_cancelled=is_cancelled)
            case Attribute():
                return attribute(
                    self.model,
                    task.image,
                    task.prompt,
                    token=task.token,
                    is_cancelled=is_cancelled,
                )
            case Look():
                return self.model.picture_key(task.image)
            case Judge():
                return self.model.text_logprobs(task.ids, top=task.top)

    def _between_passes(self, task: Task) -> None:
        """Inside a task, where the model is as ever and may be asked other things."""
        self._give_rows_their_share(task)
        if len(self._under_way) == 1:
            # As many as wait now, and none that come later.
            for _ in range(len(self._tasks)):
                waiting = self._tasks.popleft()
                if isinstance(waiting, Encode | Refine):
                    self._tasks.append(waiting)
                else:
                    self._perform(waiting)
            self._work_behind()
        self._pass_began = time.perf_counter()

    def _work_behind(self) -> None:
        """One turn of the rows that edits ask for."""
        if self._behind.is_busy:
            self._pass_began = time.perf_counter()
            self._behind.turn()
            self._give_rows_their_share()

    def _give_rows_their_share(self, task: Task | None = None) -> None:
        """As long as the last pass took, or after one for an edit `EDITS_WAIT` times as long.

        A turn at least, and no longer than until somebody else waits for the device.
        """
        is_for_edit = task is None or isinstance(task, EditTask)
        took = time.perf_counter() - self._pass_began
        self._collect()
        until = time.perf_counter() + took * (EDITS_WAIT if is_for_edit else 1)
        while self._rows.is_busy:
            self._rows.turn()
            self._collect()
            if time.perf_counter() >= until:
                return
            if is_for_edit and any(not isinstance(each, EditTask) for each in self._tasks):
                return
