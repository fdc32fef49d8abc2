"""A server under attack, and those beside it: what is sent, who watches, and what memory it takes.

Whoever watches is a process of its own: in a thread it would wait for the attackers' own work.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, Self

ROOT = Path(__file__).resolve().parents[2]

NICE = 10
"""Attackers and those who measure memory give way: on the server's own machine they would take from
it what a network would not."""

LIVE = ("GET", "/health/live", None)

FINE = frozenset({200, 201, 400, 413, 415, 422, 429})
"""Statuses of an attack that was answered in words."""

Request = tuple[str, str, bytes | None]
"""Method, path with query, body."""

Kind = Literal["names", "members", "marks", "elements"]


def request_of(picture: bytes, path: str) -> Request:
    """A question about a picture, or a correction, as it is sent."""
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    body: dict[str, Any] = {"image": uri, "prompt": "q"}
    body |= {"max_new_tokens": 1} if path == "/generate" else {"target": "t", "verify": "off"}
    return "POST", path, json.dumps(body).encode()


@cache
def heavy(kind: Kind, size: int) -> Request:
    """A request that costs a trusting server seconds, or gigabytes; `size` 0 to 3."""
    match kind:
        case "names":
            return "GET", "/edits?" + "&".join(map(str, range(10_000))), None
        case "members":  # 3.8 to 16 MiB
            members = b",".join(b'"%d":0' % i for i in range(350_000 * (1 + size)))
            return "POST", "/generate", b"{" + members + b"}"
        case "marks":
            heap = "a" + "\u0301\u0316" * 39_000
            return "POST", "/generate", json.dumps({"prompt": heap}, ensure_ascii=False).encode()
        case "elements":
            return "POST", "/generate", b'{"prompt":[' + b"[]," * 5_500_000 + b"[]]}"


class Attackers:
    """So many at once, each sending one request after another on a connection of its own.

    Plainer clients than most, so that the machine is left to the server. A status of 0: no answer.
    """

    def __init__(self, url: str, at_once: int) -> None:
        self._address, self._at_once = url.removeprefix("http://"), at_once
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0

    def send(self, requests: Iterable[Request]) -> None:
        # On Linux, where this runs, it is the thread that is niced.
        with ThreadPoolExecutor(self._at_once, initializer=os.nice, initargs=(NICE,)) as pool:
            list(pool.map(self._send, requests))

    def _send(self, request: Request) -> None:
        method, path, body = request
        began = time.perf_counter()
        connection = HTTPConnection(self._address, timeout=120)
        try:
            connection.request(method, path, body)
            status = connection.getresponse().status
        except (HTTPException, OSError):
            status = 0
        finally:
            connection.close()
        self.slowest = max(self.slowest, time.perf_counter() - began)
        self.statuses[status] += 1

    def told(self) -> str:
        return ", ".join(f"{self.statuses[status]} x {status}" for status in sorted(self.statuses))


@dataclass(frozen=True, slots=True)
class Lap:
    """What one who watches noted: how long each request took, and its status."""

    seconds: tuple[float, ...] = ()
    statuses: tuple[int, ...] = ()

    def __add__(self, other: Lap) -> Lap:
        return Lap(self.seconds + other.seconds, self.statuses + other.statuses)

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return 1000 * statistics.quantiles(self.seconds, n=100)[percent - 1]

    def line(self) -> str:
        return (
            f"n {len(self.seconds)}, p50 {self.percentile(50):.0f}, p95 {self.percentile(95):.0f}, "
            f"p99 {self.percentile(99):.0f}, slowest {1000 * max(self.seconds):.0f} ms"
        )


class Beside:
    """Somebody who sends the same request again and again (`watch.py`), in a process of its own."""

    def __init__(self, url: str, request: Request) -> None:
        method, path, body = request
        text = None if body is None else body.decode()
        self._first = json.dumps([url.removeprefix("http://"), method, path, text])
        self.total = Lap()
        """All laps together, once it is left."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.watch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._say(self._first)
        self._noted()  # what came while others were starting
        return self

    def lap(self) -> Lap:
        """What it noted since the lap before."""
        lap = self._noted()
        self.total += lap
        return lap

    def __exit__(self, *_: object) -> None:
        self.lap()
        self._process.communicate()

    def _noted(self) -> Lap:
        self._say("")
        assert self._process.stdout is not None
        seconds, statuses = json.loads(self._process.stdout.readline())
        return Lap(tuple(seconds), tuple(statuses))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def unfinished(url: str, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections with a body of 16 MiB of which one byte came, open as long as `stack` is."""
    head = "POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16777216\r\n\r\n{"
    halves = []
    for _ in range(count):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        half = stack.enter_context(socket.create_connection(address, timeout=120))
        half.sendall(head.encode())
        halves.append(half)
    return halves


class Memory(threading.Thread):
    """The most that a server and its decoders hold, read ten times a second."""

    def __init__(self, root: int) -> None:
        super().__init__()
        self._root, self._stopped = root, threading.Event()
        self.peak_mib = memory_mib(root)

    def run(self) -> None:
        os.nice(NICE)
        while not self._stopped.wait(0.1):
            self.peak_mib = max(self.peak_mib, memory_mib(self._root))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


def memory_mib(root: int) -> float:
    """Of a process and all it started; what they share with each other counts once."""
    total = 0
    for process in [root, *_children(root)]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def _children(root: int) -> Iterator[int]:
    for task in Path(f"/proc/{root}/task").iterdir():
        try:
            found = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        for child in map(int, found):
            yield child
            yield from _children(child)
