"""The device in a process of its own: started, spoken with, and started again when it ends.

    loading -> up -> lost -> pause -> loading -> up ...
                       \\-> failed, after too many in a row

Whatever it had been sent when it was lost fails with `EngineRestarting`. Each start gets the newest
snapshot before anything else, so that nothing which was acknowledged is missing from an answer.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Self

from app.device.facts import ModelFacts
from app.device.messages import Failed, Message, Publish, Reply, Request
from app.device.process import EngineEnded, EngineProcess
from app.errors import Draining, EngineFailed, EngineRestarting, ServiceError, StartupError
from app.settings import Settings
from editing_core.experts.memory import Snapshot

logger = logging.getLogger(__name__)

_STABLE_S = 60.0
"""One that was up for so long has not failed in a row with the one before it."""

_LONGEST_PAUSE_S = 30.0
_STOP_S = 60.0
"""How long it may take to finish what it was sent, before it is ended."""


class DeviceProcess:
    """A device, see `app/engine.py`. `load` it before it belongs to an engine."""

    def __init__(self, settings: Settings, *, on_restart: Callable[[], None]) -> None:
        """`on_restart` is called, on the supervising thread, when it is up again."""
        self._settings = settings
        self._on_restart = on_restart
        self._facts: ModelFacts | None = None
        self._reply: Callable[[Reply], None] = lambda _reply: None
        self._lock = threading.Lock()
        self._process: EngineProcess | None = None
        """That which is up."""
        self._loading: EngineProcess | None = None
        self._newest: Snapshot | None = None
        self._stops = threading.Event()
        self._has_failed = False
        self._in_a_row = 0
        self._load_s = 0.0
        self._back_at = 0.0
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    @property
    def pid(self) -> int | None:
        """Of the process that is up."""
        process = self._process
        return None if process is None else process.pid

    # --- the device -------------------------------------------------------------------------

    def load(self) -> ModelFacts:
        """Start it, and return once the model is there. Blocking.

        Raises what loading the model raises, and `StartupError` where the process ended.
        """
        try:
            self._process, self._facts = self._begin()
        except EngineEnded as error:
            raise StartupError(f"the engine's process {error} while it loaded the model") from error
        return self._facts

    def answering(self, reply: Callable[[Reply], None]) -> Self:
        """Its replies go there from now on."""
        self._reply = reply
        return self

    def start(self) -> None:
        if not self._stops.is_set():
            self._thread.start()

    def stop(self) -> None:
        """Finish what it was sent, then end it; one that loads is ended at once. Blocking."""
        with self._lock:
            self._stops.set()
            up, loading = self._process, self._loading
        if loading is not None:
            loading.kill()
        if up is not None:
            up.stop()
        if self._thread.ident is None:  # it was never spoken with
            if up is not None:
                up.end()
            return
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            logger.error("the engine does not end, and is ended")
            if up is not None:
                up.kill()
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        return not self._has_failed

    @property
    def refusal(self) -> ServiceError | None:
        """Why it can be asked nothing now."""
        if self._stops.is_set():
            return Draining("This server is shutting down.", retry_after_s=5)
        if self._has_failed:
            return EngineFailed("The model's engine has ended, and stays so.", retry_after_s=30)
        if self._process is None:
            return self._restarting()
        return None

    def post(self, message: Message) -> None:
        with self._lock:
            if isinstance(message, Publish):
                self._newest = message.snapshot
            if self._process is not None:
                self._process.post(message)
                return
        if isinstance(message, Request):
            self._reply(Failed(message.id, self.refusal or self._restarting()))

    # --- the supervising thread -------------------------------------------------------------

    def _supervise(self) -> None:
        process = self._process
        while process is not None:
            began = time.monotonic()
            process.listen()
            was_stable = time.monotonic() - began >= _STABLE_S
            self._in_a_row = 0 if was_stable else self._in_a_row
            self._lose(process)
            process = self._again()

    def _lose(self, process: EngineProcess) -> None:
        with self._lock:
            self._process = None
            self._back_at = time.monotonic() + self._pause_s + self._load_s
        how, unanswered = process.end()
        if not self._stops.is_set():
            logger.error(
                "the engine's process %d %s; %d requests fail", process.pid, how, len(unanswered)
            )
        for request_id in unanswered:
            self._reply(Failed(request_id, self.refusal or self._restarting()))

    def _again(self) -> EngineProcess | None:
        """The next one that is up; None if there is to be none."""
        while not self._stops.is_set():
            if self._in_a_row >= self._settings.engine_restarts:
                self._fail(f"it ended {self._in_a_row + 1} times in a row")
                break
            if self._stops.wait(self._pause_s):
                break
            self._in_a_row += 1
            try:
                process, facts = self._begin()
            except EngineEnded as error:
                logger.error("the engine's process %s while it loaded the model", error)
                continue
            except Exception:
                logger.exception("the engine could not load the model again")
                continue
            if facts != self._facts:
                process.kill()
                process.end()
                self._fail("what it loads is another model than before")
                break
            if not self._is_wanted(process):
                process.kill()
                process.end()
                break
            logger.info("the engine is up again after %.1f s", self._load_s)
            self._on_restart()
            return process
        return None

    def _is_wanted(self, process: EngineProcess) -> bool:
        """Let it be the one that is up, unless it was told to stop meanwhile."""
        with self._lock:
            if self._stops.is_set():
                return False
            if self._newest is not None:
                process.post(Publish(self._newest))
            self._process = process
            return True

    def _begin(self) -> tuple[EngineProcess, ModelFacts]:
        """A process with its model; what is sent to it is received."""
        began = time.monotonic()
        self._back_at = began + self._load_s
        with self._lock:
            if self._stops.is_set():
                raise EngineEnded("was not started")
            process = self._loading = EngineProcess(self._settings, self._heard)
        try:
            facts = process.load()
        except Exception:
            process.end()
            raise
        finally:
            self._loading = None
        self._load_s = time.monotonic() - began
        return process, facts

    def _heard(self, reply: Reply) -> None:
        self._reply(reply)

    def _fail(self, why: str) -> None:
        logger.critical("the engine is not started again: %s; restart the server", why)
        self._has_failed = True

    @property
    def _pause_s(self) -> float:
        """None after the first, then twice as long each time."""
        return min(_LONGEST_PAUSE_S, 2.0 ** (self._in_a_row - 1)) if self._in_a_row else 0.0

    def _restarting(self) -> EngineRestarting:
        left_s = self._back_at - time.monotonic()
        return EngineRestarting(
            "The model's engine has ended, and is started again.",
            retry_after_s=max(1, math.ceil(left_s)),
        )
