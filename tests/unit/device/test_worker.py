"""The engine's process from inside: what it says, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Never

import pytest

from app.device.messages import Done, Failed, Look, Tokenise
from app.device.signals import Load, Loaded, Logged, NotLoaded, Stop
from app.device.wire import Wire, pack, unpack
from app.device.worker import Worker
from app.settings import Settings
from editing_core.editable_model import EditableModel
from tests.support.server import DEADLINE_S, logging_restored
from tests.support.tiny_model import tiny_image


class Server:
    """The other end of a worker that runs in a thread."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.wire = Wire(ours)
        self._theirs = Wire(theirs)
        self.status: int | None = None
        self._heard: list[Any] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.status = Worker(self._theirs).run()

    def say(self, value: object) -> None:
        self.wire.send(pack(value, lambda _snapshot: 0))

    def hear(self) -> Any:
        """The next of what it says, but for its log."""
        while True:
            while not self._heard:
                self._heard = unpack(self.wire.receive(), lambda _number: pytest.fail("a snapshot"))
            said = self._heard.pop(0)
            if not isinstance(said, Logged):
                return said

    def end(self) -> int | None:
        self.wire.close()
        self._thread.join(DEADLINE_S)
        self.wire.release()
        self._theirs.close()
        self._theirs.release()
        return self.status


@pytest.fixture
def server() -> Iterator[Server]:
    with logging_restored():
        server = Server()
        yield server
        server.end()


def test_what_cannot_travel_fails_its_own_request(
    server: Server, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Never:
        error = ValueError("its cause is a function")
        error.cause = lambda: None  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(EditableModel, "picture_key", fail)
    server.say(Load(Settings.load(model=str(tiny_checkpoint), device="cpu"), 30))
    assert isinstance(server.hear(), Loaded)
    server.say(Look(1, tiny_image(0)))
    server.say(Tokenise(2, "the"))
    said: dict[int, Done | Failed] = {}
    while len(said) < 2:
        reply = server.hear()
        if isinstance(reply, Done | Failed):
            said[reply.id] = reply

    assert isinstance(said[1], Failed)
    assert "ValueError('its cause is a function')" in str(said[1].error)
    assert isinstance(said[2], Done)
    server.say(Stop())
    assert server.end() == 0


def test_a_model_that_is_not_there_is_told_and_the_server_is_missed(
    server: Server, tmp_path: Path
) -> None:
    server.say(Load(Settings.load(model=str(tmp_path / "nowhere"), device="cpu"), 30))
    refused = server.hear()
    assert isinstance(refused, NotLoaded)
    assert "nowhere" in str(refused.error)
    assert server.end() == 1
