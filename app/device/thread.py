"""The device thread: questions in one running batch, and tasks between its steps.

    collect what came in  ->  a turn of the rows  ->  one task  ->  ...

A task (an edit encoded, refined; a picture looked at) has the device to itself. One that takes
long asks between its passes whether it was cancelled; there the rows get as much time as the pass
took, so that streams go on, and what is shorter than an edit goes first.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch

from app.device.messages import (
    Attribute,
    Cancel,
    Done,
    Encode,
    Failed,
    Generate,
    ImageKey,
    Judge,
    Progress,
    Refine,
    Reply,
    Request,
    Rescope,
    Task,
)
from app.device.reach import Reach, look
from app.device.rows import RowScheduler
from editing_core.attribution.attribute import attribute
from editing_core.editable_model import EditableModel
from editing_core.types import EditRequest

logger = logging.getLogger(__name__)


class DeviceThread:
    """Runs requests on `model`. `reply` is called on its thread and must not raise."""

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
        self._inbox: queue.SimpleQueue[Request | Cancel | None] = queue.SimpleQueue()
        self._rows = RowScheduler(
            model,
            reply,
            rows_at_once=rows_at_once,
            tokens_at_once=tokens_at_once,
            beginnings_bytes=beginnings_bytes,
        )
        self._tasks: deque[Task] = deque()
        self._under_way: list[int] = []
        """Tasks that have begun; the later ones run between two passes of the earlier."""
        self._cancelled: set[int] = set()
        self._stops = False
        self._pass_began = 0.0
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is queued, then end the thread. Blocks; safe to call twice."""
        if self._thread.is_alive():
            self._inbox.put(None)
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def post(self, message: Request | Cancel) -> None:
        """Hand a message over. From any thread."""
        self._inbox.put(message)

    @property
    def begun(self) -> frozenset[int]:
        """Requests that it has begun and not ended. From any thread."""
        return self._rows.begun | frozenset(self._under_way)

    def validate(self, request: EditRequest, *, editor: str) -> None:
        """Refuse what `Encode` would refuse without running the model. On any thread, blocking.

        Raises what `EditableModel.validate` raises.
        """
        self.model.validate(request, editor=editor)

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text. On any thread. Raises `ContextTooLong`."""
        return self.model.text_ids(text)

    def reach(
        self,
        wordings: Sequence[str],
        not_for: Sequence[str],
        *,
        questions: Sequence[str],
        limit: int,
    ) -> Reach:
        """Where an edit with these wordings will apply, see `look`. On any thread, blocking."""
        return look(self.model, wordings, not_for, questions=questions, limit=limit)

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._stops and self._is_idle):
            self._collect(waits=self._is_idle)
            self._rows.turn()
            if self._tasks:
                self._perform(self._tasks.popleft())
                self._give_rows_their_share()
        logger.debug("device thread ends")

    @property
    def _is_idle(self) -> bool:
        return not self._tasks and not self._rows.is_busy

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
                    self._rows.add(message)
                else:
                    self._tasks.append(message)
        except queue.Empty:
            return

    def _cancel(self, request_id: int) -> None:
        self._rows.cancel(request_id)
        self._tasks = deque(task for task in self._tasks if task.id != request_id)
        if request_id in self._under_way:
            self._cancelled.add(request_id)

    # --- tasks ------------------------------------------------------------------------------

    def _perform(self, task: Task) -> None:
        self._under_way.append(task.id)
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
            self._between_passes()
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
            case Attribute():
                return attribute(
                    self.model,
                    task.image,
                    task.prompt,
                    token=task.token,
                    is_cancelled=is_cancelled,
                )
            case ImageKey():
                return self.model.image_key(task.image)
            case Judge():
                return self.model.text_logprobs(task.ids, top=task.top)

    def _between_passes(self) -> None:
        """Inside a task, where the model is as ever and may be asked other things."""
        self._give_rows_their_share()
        if len(self._under_way) == 1:
            # As many as wait now, and none that come later.
            for _ in range(len(self._tasks)):
                task = self._tasks.popleft()
                if isinstance(task, Encode | Refine):
                    self._tasks.append(task)
                else:
                    self._perform(task)
        self._pass_began = time.perf_counter()

    def _give_rows_their_share(self) -> None:
        """As long as the last pass of a task took, and a turn at least."""
        self._collect()
        until = time.perf_counter() + (time.perf_counter() - self._pass_began)
        while self._rows.is_busy:
            self._rows.turn()
            self._collect()
            if time.perf_counter() >= until:
                return
