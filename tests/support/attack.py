"""A server under attack, and those beside it: what is sent, who watches, and what memory it takes.

Whoever watches is a process of its own: in a thread it would wait for the attackers' own work.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Self

import httpx

PAUSE_S = 0.02
"""Between two requests of one who watches."""

LIVE = ("GET", "/health/live", None)

Request = tuple[str, str, bytes | None]
"""Method, path with query, body."""

Kind = Literal["names", "members", "marks", "elements"]


def request_of(picture: bytes, path: str) -> Request:
    """A question about a picture, or a correction, as it is sent."""
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()
    body: dict[str, Any] = {"image": uri, "prompt": "q"}
    body |= {"max_new_tokens": 1} if path == "/generate" else {"target": "t", "verify": "off"}
    return "POST", path, json.dumps(body).encode()


def heavy(kind: Kind, number: int) -> Request:
    """A request that costs a trusting server seconds, or gigabytes."""
    match kind:
        case "names":
            return "GET", "/edits?" + "&".join(map(str, range(10_000))), None
        case "members":
            return "POST", "/generate", _members(350_000 * (1 + number % 4))
        case "marks":
            heap = "a" + "\u0301\u0316" * 39_000
            return "POST", "/generate", json.dumps({"prompt": heap}, ensure_ascii=False).encode()
        case "elements":
            return "POST", "/generate", b'{"prompt":[' + b"[]," * 5_500_000 + b"[]]}"


@lru_cache
def _members(count: int) -> bytes:
    """An object of `count` numbers under their own names: 3.8 MB for 350,000."""
    return b"{" + b",".join(b'"%d":0' % i for i in range(count)) + b"}"


class Beside:
    """Somebody who sends the same request again and again, and notes how long each takes."""

    def __init__(self, url: str, request: Request) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        start = multiprocessing.get_context("spawn")
        self._ours, theirs = start.Pipe()
        self._process = start.Process(target=_watch, args=(theirs, url, request), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        assert self._ours.recv() == "begun"
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.send("stop")
        self.seconds, self.statuses = self._ours.recv()
        self._process.join()

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return 1000 * statistics.quantiles(self.seconds, n=100)[percent - 1]

    def line(self) -> str:
        return (
            f"n {len(self.seconds)}, p50 {self.percentile(50):.0f}, p95 {self.percentile(95):.0f}, "
            f"p99 {self.percentile(99):.0f}, slowest {1000 * max(self.seconds):.0f} ms"
        )


def _watch(pipe: Connection, url: str, request: Request) -> None:
    method, path, body = request
    seconds: list[float] = []
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        client.request(method, path, content=body)
        pipe.send("begun")
        while not pipe.poll(PAUSE_S):
            began = time.perf_counter()
            try:
                statuses[client.request(method, path, content=body).status_code] += 1
            except httpx.TransportError:
                statuses[0] += 1
            seconds.append(time.perf_counter() - began)
    pipe.send((seconds, statuses))


class Memory(threading.Thread):
    """The most that a server and its decoders hold, read ten times a second."""

    def __init__(self, root: int) -> None:
        super().__init__()
        self._root, self._stopped = root, threading.Event()
        self.peak_mib = memory_mib(root)

    def run(self) -> None:
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
