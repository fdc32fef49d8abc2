"""A real server for tests: uvicorn on a real socket, in a thread of this process or as a process.

In a thread, tests may also reach into the engine, through its public door, to hold the device
still: what a test wants to happen in between then happens in between, on any machine.
"""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from PIL import Image

from app.device.supervision import DeviceProcess
from app.device.thread import DeviceThread
from app.main import create_app
from app.protocol import HttpConfig, HttpServer
from app.runtime import Runtime
from app.service import EditingService
from app.settings import Settings
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.types import ImageArray, Sampling
from tests.support.tiny_model import tiny_image

DEADLINE_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


def png(image: ImageArray, *, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def picture(seed: int = 1) -> str:
    """A small picture as a request holds it; different seeds, different image keys."""
    return data_uri(png(tiny_image(seed)))


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; the deadline is only there so that a failure ends."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@contextmanager
def logging_restored() -> Iterator[None]:
    """What `errata serve` does to logging is undone, where it runs inside a test's process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing at all while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class LiveServer:
    """One application behind uvicorn in a thread, ready when entered, closed when left."""

    def __init__(self, settings: Settings, *, wait: bool = True) -> None:
        self.app = create_app(settings)
        self.runtime: Runtime = self.app.state.runtime
        self._wait = wait
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE_S, trust_env=False)
        self._server = HttpServer(HttpConfig(self.app, settings))
        self._thread = threading.Thread(target=self._run)
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def service(self) -> EditingService:
        return self.runtime.service

    @property
    def model(self) -> EditableModel:
        """What is served, behind the door that the service uses; in a thread only."""
        return self.thread.model

    @property
    def thread(self) -> DeviceThread:
        device = self.service.engine.device
        assert isinstance(device, DeviceThread)
        return device

    @property
    def device_pid(self) -> int:
        """The engine's process, where it has one of its own, and that is up."""
        device = self.service.engine.device
        assert isinstance(device, DeviceProcess)
        assert device.pid is not None
        return device.pid

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def connections(self) -> list[socket.socket]:
        """The server's ends of those that are open."""
        open_now = list(self._server.server_state.connections)
        return [each.transport.get_extra_info("socket") for each in open_now]

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive())
        if self._wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        eventually(lambda: self.runtime.state != "starting")
        assert self.runtime.state == "ready", self.runtime.failure

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    @contextmanager
    def device_held(self) -> Iterator[None]:
        """The device is busy while the block runs; whatever is asked waits in its queue."""
        if isinstance(self.service.engine.device, DeviceProcess):
            with stopped(self.device_pid):
                yield
            return
        busy, release = threading.Event(), threading.Event()

        def wait(_row: int, _text: str) -> None:
            busy.set()
            release.wait(DEADLINE_S)

        held = self.hold(wait)
        assert busy.wait(DEADLINE_S)
        try:
            yield
        finally:
            release.set()
            held()

    def hold(self, on_tokens: Callable[[int, str], None]) -> Callable[[], object]:
        """Queue a generation that calls `on_tokens`; the result waits for its end."""
        assert self.loop is not None
        row = GenerationRow("hold", None, Sampling(max_new_tokens=4))
        future = asyncio.run_coroutine_threadsafe(
            self.service.engine.generate([row], on_tokens=on_tokens), self.loop
        )
        return lambda: future.result(DEADLINE_S)

    def drain(self) -> None:
        """What SIGTERM begins with."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self.runtime.drain(), self.loop).result(DEADLINE_S)

    @property
    def waiting(self) -> int:
        """Requests that hold a ticket."""
        return self.service.engine.overload_status().waiting

    def version(self) -> int:
        return int(self.client.get("/versions").json()["version"])


class ServerProcess:
    """`errata serve` as a process of its own, on a free port, ready when entered."""

    def __init__(
        self,
        *arguments: str | Path,
        cwd: Path,
        program: str = "import app.cli; app.cli.main()",
    ) -> None:
        self._arguments = [str(argument) for argument in arguments]
        self._cwd = cwd
        self._program = program
        self.lines: list[str] = []
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._program, "serve", "--port", "0", *self._arguments],
            cwd=self._cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if match := re.search(r"ready on (http://\S+)", line):
                self.url = match.group(1)
                break
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()))
        self._reader.start()
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE_S) if self.url else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if self.client is not None:
            self.client.close()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        assert self.client is not None, "".join(self.lines)
        return self.client.request(method, path, **more)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)
