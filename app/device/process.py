"""One process that runs the model, from its start to its end, seen from the server."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from app.device.facts import ModelFacts
from app.device.messages import Cancel, Done, Failed, Message, Publish, Reply, Request
from app.device.signals import Load, Loaded, Logged, NotLoaded, Stop
from app.device.snapshots import Forget, NumberedSnapshots
from app.device.wire import Wire, pack, unpack
from app.settings import ENV_PREFIX, Settings
from editing_core.experts.memory import Snapshot

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from app.device.worker import main; main()"
_END_S = 10.0
"""How long a process whose wire is closed may take to end by itself."""


class EngineEnded(Exception):
    """It ended before it was there."""


class EngineProcess:
    """`load`, `listen` and `end` belong to one thread, in this order; the rest to any.

    `reply` is called on that thread and on the sending one.
    """

    def __init__(self, settings: Settings, reply: Callable[[Reply], None]) -> None:
        self._reply = reply
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                _command(theirs.fileno()),
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # whatever a library prints belongs to the log
                start_new_session=True,  # Ctrl-C is for the server, which ends it in its turn
            )
        self._wire = Wire(ours)
        self._outbox: queue.SimpleQueue[Message | Load | Stop | Forget | None] = queue.SimpleQueue()
        self._snapshots = NumberedSnapshots(self._outbox.put)
        self._outstanding: set[int] = set()
        self._sender = threading.Thread(target=self._send_all, name="to-the-engine", daemon=True)
        self._sender.start()
        order = settings.model_copy(update={"admin_key": None})  # it has no use for secrets
        self._outbox.put(Load(order, logging.getLogger().getEffectiveLevel()))

    @property
    def pid(self) -> int:
        return self._process.pid

    def post(self, message: Message) -> None:
        """Send it, in its turn."""
        if isinstance(message, Cancel):
            self._outstanding.discard(message.id)
        elif not isinstance(message, Publish):
            self._outstanding.add(message.id)
        self._outbox.put(message)

    def stop(self) -> None:
        """Let it finish what it was sent, and end."""
        self._outbox.put(Stop())

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()

    # --- its story --------------------------------------------------------------------------

    def load(self) -> ModelFacts:
        """Return once the model is there. Blocking.

        Raises what loading it raised, and `EngineEnded` when there is no process any more.
        """
        for said in self._next():
            if isinstance(said, Loaded):
                return said.facts
            if isinstance(said, NotLoaded):
                raise said.error
        raise EngineEnded(self._how_it_ended())

    def listen(self) -> None:
        """Pass on what it replies, until it has ended. Blocking."""
        for _ in self._next():
            pass

    def end(self) -> tuple[str, Sequence[int]]:
        """How it ended, or was ended here, and which requests it has not answered. Blocking."""
        how = self._how_it_ended()
        self._outbox.put(None)
        self._sender.join()
        self._wire.release()
        return how, sorted(self._outstanding)

    def _how_it_ended(self) -> str:
        self._wire.close()
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    # --- the wire ---------------------------------------------------------------------------

    def _next(self) -> Iterator[Loaded | NotLoaded]:
        """Of what it says, that which is no reply, until its end."""
        while True:
            try:
                said = unpack(self._wire.receive(), _no_snapshot)
            except (EOFError, OSError):
                return
            except Exception:
                logger.exception("what the engine says cannot be read")
                return
            for each in said:
                match each:
                    case Logged():
                        each.write(engine=self.pid)
                    case Loaded() | NotLoaded():
                        yield each
                    case _:
                        if isinstance(each, Done | Failed):
                            self._outstanding.discard(each.id)
                        self._reply(each)

    def _send_all(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self._send(message)
            except OSError:  # it has ended, which is noticed where it is listened to
                return
            except Exception:
                logger.exception("the engine cannot be told of a snapshot, and is ended")
                self.kill()
                return

    def _send(self, message: Message | Load | Stop | Forget) -> None:
        """After the snapshots that it names, where they are new there."""
        frame = None
        if isinstance(message, Publish):
            self._snapshots.number(message.snapshot)
        else:
            try:
                frame = pack(message, self._snapshots.number)
            except Exception as error:
                if not isinstance(message, Request):
                    raise
                self._outstanding.discard(message.id)
                self._reply(Failed(message.id, error))
        for definition in self._snapshots.definitions():
            self._wire.send(pack(definition, self._snapshots.number))
        if isinstance(message, Publish):
            self._snapshots.newest = message.snapshot
        if frame is not None:
            self._wire.send(frame)


def _command(descriptor: int) -> list[str]:
    # From where this process takes its code, and from nowhere else; not from the folder it is in.
    paths = (str(_ROOT), *(path for path in sys.path if path))
    return [sys.executable, "-P", "-c", _PROGRAM, str(descriptor), *paths]


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.upper() != f"{ENV_PREFIX}ADMIN_KEY"}


def _no_snapshot(number: int) -> Snapshot:
    raise LookupError(f"the engine names a snapshot, {number}")
