"""The engine's own process: it loads the model and runs the device thread, until the server ends.

Its first thread receives, one sends, and what runs the model never waits for either. Where the
other end of the wire is gone, the server is, and this process ends at once, whatever it does.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import TypeAlias

from app.device.facts import ModelFacts
from app.device.loading import load_model, log_progress
from app.device.messages import Failed, Reply
from app.device.signals import Load, Loaded, Logged, NotLoaded, Stop
from app.device.snapshots import Define, Forget, Gather, KeptSnapshots
from app.device.thread import DeviceThread
from app.device.wire import Frame, Wire, pack, unpack
from app.errors import ServiceError
from app.memory import give_back_freed_memory
from editing_core.errors import EditingError
from editing_core.experts.memory import Snapshot

logger = logging.getLogger(__name__)

_THREAD_TURN_S = 0.0005
"""How long a thread that computes keeps those that receive and send waiting."""

Said: TypeAlias = "Reply | Loaded | NotLoaded | Logged"


def main() -> None:
    """Started by `app/device/process.py`, with the wire's file descriptor."""
    # The server ends this process in its turn; what ends the server's whole group must not.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    threading.excepthook = _end
    give_back_freed_memory()
    sys.setswitchinterval(_THREAD_TURN_S)
    try:
        status = Worker(Wire(socket.socket(fileno=int(sys.argv[1])))).run()
    except Exception:  # noqa: BLE001 - a bug: another process does better than half of this one
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    # Without the interpreter's goodbye: a thread that computes would be waited for.
    os._exit(status)


def _end(failure: threading.ExceptHookArgs) -> None:
    """No thread of this process may be missing: whoever waits for it would wait for ever."""
    traceback.print_exception(failure.exc_value)
    sys.stderr.flush()
    os._exit(1)


class Worker:
    """One engine, from `Load` to `Stop`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._outbox: queue.SimpleQueue[Said | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self._snapshots = KeptSnapshots()
        self._device: DeviceThread | None = None

    def run(self) -> int:
        """The process's exit status."""
        self._sender.start()
        try:
            while True:
                said = unpack(self._wire.receive(), self._snapshots.__getitem__)
                match said:
                    case Gather() | Define() | Forget():
                        self._snapshots.take(said)
                    case Load():
                        threading.Thread(target=self._load, args=(said,), daemon=True).start()
                    case Stop():
                        self._finish()
                        return 0
                    case _:
                        assert self._device is not None
                        self._device.post(said)
        except (EOFError, OSError):
            return 1  # nobody is left to tell

    def _finish(self) -> None:
        """What was begun is ended and sent."""
        if self._device is not None:
            self._device.stop()
        self._outbox.put(None)
        self._sender.join()

    # --- the model --------------------------------------------------------------------------

    def _load(self, order: Load) -> None:
        logging.getLogger().handlers[:] = [_ToTheServer(self._outbox)]
        logging.getLogger().setLevel(order.log_level)
        settings = order.settings
        try:
            model = load_model(settings, notify=log_progress)
            facts = ModelFacts.of(model)
        except Exception as error:  # noqa: BLE001 - it is told there
            self._outbox.put(NotLoaded(_told(error)))
            return
        self._device = DeviceThread(
            model,
            self._reply,
            rows_at_once=settings.batch_rows,
            tokens_at_once=settings.batch_tokens,
            beginnings_bytes=settings.prefix_cache_mib * 2**20,
        )
        self._device.start()
        self._outbox.put(Loaded(facts))

    def _reply(self, reply: Reply) -> None:
        if isinstance(reply, Failed):
            reply = Failed(reply.id, _told(reply.error))
        self._outbox.put(reply)

    # --- the sending thread -----------------------------------------------------------------

    def _send_all(self) -> None:
        """Whatever waits goes together: a step of many rows is one frame."""
        while True:
            waiting, is_last = self._waiting()
            try:
                self._wire.send(_packed(waiting))
            except OSError:
                return  # nobody is left; the receiving thread ends the process
            if is_last:
                return

    def _waiting(self) -> tuple[list[Said], bool]:
        said = [self._outbox.get()]
        try:
            while said[-1] is not None:
                said.append(self._outbox.get_nowait())
        except queue.Empty:
            pass
        return [each for each in said if each is not None], said[-1] is None


def _packed(said: Sequence[Said]) -> Frame:
    try:
        return pack(list(said), _no_snapshot)
    except Exception:  # noqa: BLE001 - whichever cannot travel; the others shall
        return pack([_that_travels(each) for each in said], _no_snapshot)


def _that_travels(said: Said) -> Said:
    try:
        pack(said, _no_snapshot)
    except Exception as error:  # noqa: BLE001 - whatever it is, its request fails by it
        if isinstance(said, Logged):
            return Logged(said.name, said.level, said.text, said.created)
        told = RuntimeError(f"{type(said).__name__} cannot be sent: {error!r}; {said!r:.500}")
        return NotLoaded(told) if isinstance(said, Loaded | NotLoaded) else Failed(said.id, told)
    return said


def _no_snapshot(_snapshot: Snapshot) -> int:
    raise TypeError("snapshots travel to the engine, never back")


def _told(error: Exception) -> Exception:
    """With its traceback as a note, where it is for the log: a traceback does not travel."""
    if not isinstance(error, EditingError | ServiceError):
        error.add_note("In the engine:\n" + "".join(traceback.format_tb(error.__traceback__)))
    return error


class _ToTheServer(logging.Handler):
    def __init__(self, outbox: queue.SimpleQueue[Said | None]) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.put(Logged.of(record))
