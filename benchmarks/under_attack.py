"""Is a server under attack still there for everybody else? Latency, memory, and its end.

    python -m benchmarks.under_attack [--model FOLDER] [--pictures FOLDER] [--mutants 200]

Three parts, each on a server of its own. Pictures that cost much or lie, one and eight at once,
through `/generate` and `/edits`, beside somebody who asks and somebody who probes liveness; the
largest pictures that are taken, in each format; and forty at once of requests that cost a trusting
server seconds or gigabytes, with a SIGTERM in the middle. Attackers are niced by ten: what they
compute is no part of the server, and over a network would be elsewhere. Quiet times lie between the
parts of an attack, since other work on the machine would else be taken for it. `--pictures` adds
the files of a folder. Linux only. Exits with 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from benchmarks.report import table, write
from tests.support.attack import (
    FINE,
    LIVE,
    Attackers,
    Beside,
    Kind,
    Lap,
    Memory,
    heavy,
    memory_mib,
    request_of,
    unfinished,
)
from tests.support.hostile import costly, mutants
from tests.support.server import ServerProcess, png
from tests.support.tiny_model import tiny_image

AT_ONCE = 40
ROUNDS: dict[Kind, int] = {"names": 20, "members": 3, "marks": 20, "elements": 3}
LIVE_MS, ANSWER_S, DRAIN_S = 200, 5, 25
ALONE_MIB, EIGHT_MIB, LATER_MIB = 300, 600, 100
SIDES = {"PNG": 5000, "JPEG": 5000, "WEBP": 4096}
PARTS, QUIET_S = 8, 4

QUESTION = request_of(png(tiny_image(1)), "/generate")


class Report:
    """Rows of figures, and whether each is within its limit."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.misses = 0

    def add(self, what: str, figure: str, limit: str = "", *, is_within: bool = True) -> None:
        self.misses += not is_within
        self.rows.append([what, figure, limit, "" if is_within else "missed"])
        sys.stderr.write(f"{what}: {figure} {'' if is_within else 'MISSED'}\n")

    def at_most(self, what: str, figure: float, limit: float, unit: str) -> None:
        is_within = figure <= limit
        self.add(what, f"{figure:.1f} {unit}", f"{limit:g} {unit}", is_within=is_within)

    def table(self) -> str:
        return table(["", "measured", "limit", ""], self.rows)


def pictures(server: ServerProcess, files: Sequence[bytes], report: Report) -> None:
    """Each through both doors, one and eight at once, in parts with a quiet time before each."""
    root = server.process.pid
    idle = memory_mib(root)
    report.add("idle: memory", f"{idle:.0f} MiB")
    requests = [request_of(data, path) for data in files for path in ("/generate", "/edits")]
    for at_once, limit in ((1, ALONE_MIB), (8, EIGHT_MIB)):
        attackers, name = Attackers(server.url, at_once), f"{at_once} at once"
        quiet, asked, alive = Lap(), Lap(), Lap()
        with (
            Memory(root) as memory,
            Beside(server.url, QUESTION) as good,
            Beside(server.url, LIVE) as live,
        ):
            for number in range(PARTS):
                good.lap()
                time.sleep(QUIET_S)
                quiet += good.lap()
                live.lap()
                attackers.send(requests[number::PARTS])
                asked, alive = asked + good.lap(), alive + live.lap()
        is_fine = set(attackers.statuses) <= FINE
        report.add(f"{name}: statuses", attackers.told(), "no 5xx", is_within=is_fine)
        report.at_most(f"{name}: slowest answer", attackers.slowest, ANSWER_S, "s")
        report.at_most(f"{name}: memory above idle", memory.peak_mib - idle, limit, "MiB")
        report.add(f"{name}: liveness", alive.line())
        report.at_most(f"{name}: liveness, p99", alive.percentile(99), LIVE_MS, "ms")
        report.add(f"{name}: questions in between", quiet.line())
        report.add(f"{name}: questions", asked.line())
        ratio = asked.percentile(95) / quiet.percentile(95)
        report.at_most(f"{name}: questions, p95 over that in between", ratio, 2, "times")
        report.add(f"{name}: load average of this machine", f"{os.getloadavg()[0]:.1f}")
    time.sleep(60)
    report.at_most("a minute later: memory above idle", memory_mib(root) - idle, LATER_MIB, "MiB")


def large(server: ServerProcess, report: Report) -> None:
    """The largest that are taken: what they hold, and whether it is given back."""
    root, idle = server.process.pid, memory_mib(server.process.pid)
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 60}), ("WEBP", {"quality": 30})):
        request = request_of(_large(kind, **options), "/generate")
        for at_once in (1, 8):
            attackers = Attackers(server.url, at_once)
            with Memory(root) as memory:
                attackers.send([request] * at_once)
            report.add(
                f"{SIDES[kind]}x{SIDES[kind]} {kind}, {at_once} at once",
                f"{attackers.told()}, slowest {attackers.slowest:.1f} s, "
                f"+{memory.peak_mib - idle:.0f} MiB",
            )
    time.sleep(60)
    report.at_most("a minute later: memory above idle", memory_mib(root) - idle, LATER_MIB, "MiB")


def _large(kind: str, **options: int) -> bytes:
    """A picture of smooth colours, so that its file is small enough to be taken."""
    across = np.linspace(0, 255, SIDES[kind], dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(across, across[:, None], np.uint8(90)), axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def crowds(server: ServerProcess, report: Report) -> None:
    """Forty at once of each kind; then of all kinds, and a SIGTERM."""
    for kind in get_args(Kind):
        attackers = Attackers(server.url, AT_ONCE)
        requests = [heavy(kind, number % 4) for number in range(ROUNDS[kind] * AT_ONCE)]
        with Beside(server.url, LIVE) as live:
            attackers.send(requests)
        _tell(kind, attackers.told(), live, report)
    with ExitStack() as stack:
        with Beside(server.url, LIVE) as live:
            unfinished(server.url, AT_ONCE, stack)
            time.sleep(5)
        _tell("unfinished bodies", f"{AT_ONCE} held", live, report)
        attackers = Attackers(server.url, AT_ONCE)
        requests = [heavy(kind, number % 4) for number in range(30) for kind in get_args(Kind)]
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(attackers.send, requests)
            time.sleep(1)
            began = time.perf_counter()
            status = server.terminate()
            seconds = time.perf_counter() - began
            sent.result()
    report.add("SIGTERM among all of them: exit status", str(status), "0", is_within=status == 0)
    report.at_most("SIGTERM among all of them", seconds, DRAIN_S, "s")
    lost = "Traceback" in "".join(server.lines)
    report.add("tracebacks in the log", "some" if lost else "none", "none", is_within=not lost)


def _tell(kind: str, told: str, live: Beside, report: Report) -> None:
    report.add(f"{AT_ONCE} at once, {kind}", f"{told}; liveness {live.total.line()}")
    is_answered = set(live.total.statuses) == {200}
    report.add(
        f"{kind}: liveness",
        str(dict(Counter(live.total.statuses))),
        "all 200",
        is_within=is_answered,
    )
    report.at_most(f"{kind}: liveness, slowest", 1000 * max(live.total.seconds), LIVE_MS, "ms")


def main() -> int:
    """Measure and report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="heraldry")
    parser.add_argument("--pictures", type=Path, help="a folder of further pictures")
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--parts", default="pictures,large,crowds")
    options = parser.parse_args()
    files = [*costly().values(), *mutants(options.seed, options.mutants)]
    if options.pictures is not None:
        files += [path.read_bytes() for path in sorted(options.pictures.iterdir())]
    parts: dict[str, Callable[[ServerProcess, Report], None]] = {
        "pictures": lambda server, report: pictures(server, files, report),
        "large": large,
        "crowds": crowds,
    }
    sections, misses = [], 0
    for name in options.parts.split(","):
        report = Report()
        with tempfile.TemporaryDirectory() as folder:
            arguments = ("--model", options.model, "--data-dir", folder, "--device", "cpu")
            with ServerProcess(*arguments, cwd=Path(folder)) as server:
                server.request("POST", "/generate", content=QUESTION[2])
                parts[name](server, report)
        sections.append((name.capitalize(), report.table()))
        misses += report.misses
    told = "\n\n".join(text for _, text in sections)
    print(told)
    if len(sections) == len(parts):
        print(write("under-attack", "Under attack", sections))
    return min(misses, 1)


if __name__ == "__main__":
    sys.exit(main())
