"""The whole attack beside well-behaved clients. Minutes; run by `make test-all`.

What is asserted is how it is answered. Latencies and memory are printed;
`benchmarks/under_attack.py` holds them to their limits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pytest

from tests.support.attack import (
    FINE,
    LIVE,
    Attackers,
    Beside,
    Kind,
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
QUESTION = request_of(png(tiny_image(1)), "/generate")

Say = Callable[[str], None]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("attacked")
    arguments = ("--model", tiny_checkpoint, "--data-dir", folder / "data", "--device", "cpu")
    with ServerProcess(*arguments, cwd=folder) as process:
        assert process.request("POST", "/generate", content=QUESTION[2]).status_code == 200
        yield process


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def line(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}")

    return line


@pytest.mark.parametrize("at_once", [1, 8])
def test_pictures_that_cost_or_lie_are_answered_and_nobody_else_notices(
    server: ServerProcess, say: Say, at_once: int
) -> None:
    files = [*costly().values(), *mutants(1, 200)]
    requests = [request_of(data, path) for data in files for path in ("/generate", "/edits")]
    attackers, idle = Attackers(server.url, at_once), memory_mib(server.process.pid)
    with (
        Memory(server.process.pid) as memory,
        Beside(server.url, QUESTION) as good,
        Beside(server.url, LIVE) as live,
    ):
        attackers.send(requests)
    say(
        f"{at_once} at once: {attackers.told()}, slowest {attackers.slowest:.1f} s, "
        f"+{memory.peak_mib - idle:.0f} MiB; questions {good.total.line()}; "
        f"liveness {live.total.line()}"
    )

    assert set(attackers.statuses) <= FINE
    assert set(good.total.statuses) == set(live.total.statuses) == {200}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_crowd_of_heavy_requests_is_refused_and_liveness_answered(
    server: ServerProcess, say: Say, kind: Kind
) -> None:
    attackers = Attackers(server.url, AT_ONCE)
    with Beside(server.url, LIVE) as live:
        attackers.send(heavy(kind, number % 4) for number in range(2 * AT_ONCE))
    say(f"{AT_ONCE} at once, {kind}: {attackers.told()}; liveness {live.total.line()}")

    # 0: who does not finish sending a refused body within seconds is cut off, on a busy machine.
    assert set(attackers.statuses) <= {0, 400, 429}
    assert set(live.total.statuses) == {200}


def test_bodies_that_never_end_leave_room_for_liveness_and_small_questions(
    server: ServerProcess, say: Say
) -> None:
    with (
        ExitStack() as stack,
        Beside(server.url, QUESTION) as good,
        Beside(server.url, LIVE) as live,
    ):
        unfinished(server.url, AT_ONCE, stack)
        time.sleep(3)
    say(f"{AT_ONCE} unfinished bodies: questions {good.total.line()}; liveness {live.total.line()}")

    assert set(good.total.statuses) == set(live.total.statuses) == {200}


def test_a_stop_among_all_of_them_is_a_clean_one(server: ServerProcess, say: Say) -> None:
    """The last test of this module: it ends the server."""
    attackers = Attackers(server.url, AT_ONCE)
    requests = [heavy(kind, number % 4) for number in range(20) for kind in get_args(Kind)]
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        halves = unfinished(server.url, AT_ONCE, stack)
        sent = pool.submit(attackers.send, requests)
        time.sleep(1)
        began = time.perf_counter()
        status = server.terminate()
        seconds = time.perf_counter() - began
        sent.result()
        answers = {half.recv(2**16)[:13] for half in halves}
    say(f"stopped in {seconds:.1f} s: {attackers.told()}; unfinished bodies: {answers}\n")

    assert status == 0
    assert set(attackers.statuses) <= {0, 400, 429, 503}
    assert answers <= {b"HTTP/1.1 503 ", b"HTTP/1.1 429 "}
    assert "traceback" not in "".join(server.lines).lower()
