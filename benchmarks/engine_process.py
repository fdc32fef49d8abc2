"""What the engine in its own process gives and costs: both ways side by side, in one run.

    python -m benchmarks.engine_process [--rounds 5] [--seconds 10]

Two servers with the model that ships, one with `--engine thread`, one with `--engine process`, take
turns. In each turn 16 questions are in flight, some of them edited, and another process asks
`/health/live` twenty times a second: how long that takes is how long the event loop keeps anybody
waiting. Then one question at a time. Then what each server holds in memory.

On a machine that does other things, two processes get a larger share of it than one. So the
computing time of server and engine for a token is measured too: that is what the engine costs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.report import table, write
from editing_core.evaluation.machine import facts
from editing_core.heraldry.sample import draw_sample

IN_FLIGHT = 16
EDITS = 50
PICTURES = 24
ALONE = 8
PROBE_PAUSE_S = 0.05
ENGINES = ("thread", "process")


NAMES = {
    "tokens_s": f"tokens a second, {IN_FLIGHT} in flight",
    "cpu_ms": "computing of server and engine for a token, ms",
    "alone_ms": "one question alone, ms at the client",
    "live_p50_ms": "`/health/live` under load, p50 ms",
    "live_p99_ms": "`/health/live` under load, p99 ms",
}


@dataclass(slots=True)
class Figures:
    """Of one server, a value for each round."""

    tokens_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    live_p50_ms: list[float] = field(default_factory=list)
    live_p99_ms: list[float] = field(default_factory=list)
    alone_ms: list[float] = field(default_factory=list)


def picture(seed: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(draw_sample(seed).picture.image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def bodies() -> list[dict[str, object]]:
    prompts = ("Describe the emblem.", "What colour is the star?", "What is in the middle?")
    return [
        {"image": picture(70_000 + i), "prompt": prompts[i % 3], "max_new_tokens": 40}
        for i in range(PICTURES)
    ]


@contextmanager
def serving(engine: str, folder: Path) -> Iterator[tuple[str, int]]:
    """A server's address and process id."""
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--data-dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--engine", engine, "--threads", "1"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"ready on (http://\S+)", line):
                break
        else:
            raise RuntimeError(f"the server with --engine {engine} did not start")
        subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        yield found.group(1), process.pid
    finally:
        process.terminate()
        process.wait()


def edit(url: str, asked: Sequence[dict[str, object]]) -> None:
    """The first pictures of those asked about, and others beside them."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for number in range(EDITS):
            image = asked[number]["image"] if number < PICTURES // 2 else picture(71_000 + number)
            body = {"image": image, "prompt": asked[number % 3]["prompt"], "target": "azure"}
            client.post("/edits", json=body | {"verify": "off"}).raise_for_status()


async def under_load(
    url: str, asked: Sequence[dict[str, object]], seconds: float
) -> tuple[int, float]:
    """Tokens, and the seconds they took, with `IN_FLIGHT` questions at any time."""
    ends, tokens, numbers = time.perf_counter() + seconds, 0, iter(range(1_000_000))

    async def ask(client: httpx.AsyncClient) -> None:
        nonlocal tokens
        while time.perf_counter() < ends:
            answer = await client.post("/generate", json=asked[next(numbers) % len(asked)])
            answer.raise_for_status()
            tokens += answer.json()["usage"]["completion_tokens"]

    limits = httpx.Limits(max_connections=IN_FLIGHT)
    began = time.perf_counter()
    async with (
        httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(IN_FLIGHT):
            tasks.create_task(ask(client))
    return tokens, time.perf_counter() - began


def alone(url: str, asked: Sequence[dict[str, object]]) -> float:
    """Milliseconds that one question takes where there is no other: the median."""
    took = []
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for body in asked:
            began = time.perf_counter()
            client.post("/generate", json=body).raise_for_status()
            took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def probe(url: str, seconds: float) -> None:
    """In a process of its own: print how long each `/health/live` took, on a new connection."""
    address, took = httpx.URL(url), []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        connection.close()
        took.append(time.perf_counter() - began)
        time.sleep(PROBE_PAUSE_S)
    print(json.dumps(took))


def turn(
    server: tuple[str, int], asked: Sequence[dict[str, object]], seconds: float, kept: Figures
) -> None:
    url, pid = server
    words = ("-m", "benchmarks.engine_process", "--probe", url, "--seconds", str(seconds))
    prober = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    before = computed_s(pid)
    tokens, took_s = asyncio.run(under_load(url, asked, seconds))
    kept.tokens_s.append(tokens / took_s)
    kept.cpu_ms.append(1000 * (computed_s(pid) - before) / tokens)
    told, _ = prober.communicate()
    took = np.array(json.loads(told)) * 1000
    kept.live_p50_ms.append(float(np.percentile(took, 50)))
    kept.live_p99_ms.append(float(np.percentile(took, 99)))
    kept.alone_ms.append(alone(url, asked[:ALONE]))


def engine_of(pid: int) -> list[int]:
    """The process of a server's engine, if it has one."""
    children: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += (task / "children").read_text().split()
    return [
        int(child)
        for child in children
        if b"app.device.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def computed_s(pid: int) -> float:
    """Seconds of computing that a server and its engine have taken."""
    ticks = 0
    for each in (pid, *engine_of(pid)):
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> list[tuple[str, float]]:
    """MiB that a server and its children hold for themselves, largest first."""
    engines = [("engine", _private_mib(child)) for child in engine_of(pid)]
    return [("server", _private_mib(pid)), *engines]


def _private_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"Private_\w+:\s+(\d+) kB", text)) / 1024


def measure(rounds: int, seconds: float) -> None:
    asked = bodies()
    figures = {engine: Figures() for engine in ENGINES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {e: stack.enter_context(serving(e, folder / e)) for e in ENGINES}
        for url, _ in servers.values():
            edit(url, asked)
        for number in range(rounds + 1):
            order = ENGINES if number % 2 else ENGINES[::-1]
            for engine in order:
                turn(servers[engine], asked, seconds, figures[engine])
        held = {engine: memory(pid) for engine, (_, pid) in servers.items()}
    for each in figures.values():  # the first round warms up
        for name in NAMES:
            del getattr(each, name)[0]
    report(figures, held, rounds, seconds)


def report(
    figures: dict[str, Figures],
    held: dict[str, list[tuple[str, float]]],
    rounds: int,
    seconds: float,
) -> None:
    rows = []
    for name, what in NAMES.items():
        sides = [getattr(figures[engine], name) for engine in ENGINES]
        ratios = [b / a for a, b in zip(*sides, strict=True)]
        cells = [f"{statistics.median(v):.3g} ({min(v):.3g} to {max(v):.3g})" for v in sides]
        rows.append([what, *cells, f"{statistics.median(ratios):.2f}"])
    told = [
        [engine, ", ".join(f"{who} {mib:.0f}" for who, mib in held[engine])] for engine in ENGINES
    ]
    path = write(
        "engine-process",
        "The engine in a thread and in a process of its own",
        [
            (
                f"Medians of {rounds} rounds of {seconds:g} s (least to most); ratios by round",
                table(["", *ENGINES, "process / thread"], rows),
            ),
            (f"Private memory in MiB at the end, {EDITS} edits", table(["engine", ""], told)),
        ],
    )
    kept = {engine: {n: getattr(figures[engine], n) for n in NAMES} for engine in ENGINES}
    document = {"facts": facts(), "figures": kept, "private_mib": held}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1, default=str) + "\n")
    print(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.probe:
        probe(chosen.probe, chosen.seconds)
    else:
        measure(chosen.rounds, chosen.seconds)


if __name__ == "__main__":
    main()
