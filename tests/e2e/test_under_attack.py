"""The whole attack beside a well-behaved client, with figures. Minutes; run by `make test-all`."""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.hostile import costly, mutants
from tests.support.server import ServerProcess, data_uri, picture

QUESTION = {"prompt": "q", "image": picture(1), "max_new_tokens": 4}
FINE = frozenset({200, 201, 400, 413, 415, 422, 429})
SEEDS = 200


def body_of(data: bytes, path: str) -> dict[str, Any]:
    body = {"image": data_uri(data), "prompt": "q"}
    return body | (
        {"max_new_tokens": 1} if path == "/generate" else {"target": "t", "verify": "off"}
    )


class Beside:
    """Somebody who asks the same thing again and again, and notes how long it takes."""

    def __init__(self, ask: Callable[[httpx.Client], httpx.Response], url: str) -> None:
        self._ask, self._url = ask, url
        self._stop = threading.Event()
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._stop.is_set():
                began = time.perf_counter()
                self.statuses[self._ask(client).status_code] += 1
                self.seconds.append(time.perf_counter() - began)
                self._stop.wait(0.02)

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def line(self) -> str:
        cuts = statistics.quantiles(self.seconds, n=100)
        return f"n {len(self.seconds)}, p95 {1000 * cuts[94]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"


def live(client: httpx.Client) -> httpx.Response:
    return client.get("/health/live")


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/generate", json=QUESTION)


def processes(root: int) -> Iterable[int]:
    yield root
    for task in Path(f"/proc/{root}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def memory_mib(root: int) -> float:
    """Of the server and its decoders, what they do not share with each other counted once."""
    total = 0
    for process in processes(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Memory(threading.Thread):
    def __init__(self, root: int) -> None:
        super().__init__()
        self._root, self._stopped = root, threading.Event()
        self.idle = self.peak = memory_mib(root)

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            self.peak = max(self.peak, memory_mib(self._root))

    def stop(self) -> float:
        """The most there was above idle, in MiB."""
        self._stopped.set()
        self.join()
        return self.peak - self.idle


@pytest.mark.slow
def test_the_whole_attack_is_answered_and_nobody_else_notices(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--device", "cpu")
    files = list(costly().values()) + list(mutants(1, SEEDS))
    jobs = [(data, path) for data in files for path in ("/generate", "/edits")]
    statuses: Counter[int] = Counter()
    slowest = 0.0

    def attack(server: ServerProcess, job: tuple[bytes, str]) -> None:
        nonlocal slowest
        data, path = job
        body = json.dumps(body_of(data, path)).encode()
        began = time.perf_counter()
        response = httpx.post(f"{server.url}{path}", content=body, timeout=120)
        slowest = max(slowest, time.perf_counter() - began)
        statuses[response.status_code] += 1
        if response.is_error:
            assert response.json()["error"]["code"]

    with ServerProcess(*arguments, cwd=tmp_path) as server:
        root = server.process.pid
        assert server.request("POST", "/generate", json=QUESTION).status_code == 200
        with Beside(ask, server.url) as alone, Beside(live, server.url) as quiet:
            time.sleep(5)
        at_first = memory_mib(root)
        figures = [f"idle: questions {alone.line()}; liveness {quiet.line()}"]
        for at_once in (1, 8):
            memory, slowest = Memory(root), 0.0
            memory.start()
            with (
                Beside(ask, server.url) as good,
                Beside(live, server.url) as liveness,
                ThreadPoolExecutor(at_once) as pool,
            ):
                list(pool.map(lambda job: attack(server, job), jobs))
            figures.append(
                f"{at_once} at once: {dict(statuses)}, slowest {slowest:.1f} s, "
                f"+{memory.stop():.0f} MiB; questions {good.line()}; liveness {liveness.line()}"
            )
            assert set(good.statuses) == set(liveness.statuses) == {200}
        time.sleep(60)
        figures.append(f"a minute later: {memory_mib(root) - at_first:+.0f} MiB")
        began = time.perf_counter()
        assert server.terminate() == 0
        figures.append(f"stopped in {time.perf_counter() - began:.1f} s")
    report = "\n".join(figures)
    with capsys.disabled():
        sys.stdout.write(f"\n{report}\n")

    assert set(statuses) <= FINE, report
    assert "Traceback" not in "".join(server.lines)
