"""What a server costs with many edits: start, memory, lists, earlier versions, the collector.

    python -m benchmarks.scale [--edits 0,1000,20000] [--folder FOLDER]

A store of made-up edits is filled for each size (`many_edits.py`), and two servers are started on
it: the first reads and checks everything, the second goes on with the checkpoint of the first. Then
the second is asked; R12, R13 and R14 are the names of the ratios that are wanted. Sides take turns:
`/generate` alone and beside a client that pages through all edits, in blocks.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.images import encode_png
from benchmarks.many_edits import PROMPT, fill, one_artifact, picture
from benchmarks.report import RESULTS, table, write
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts

_BLOCKS = 5


class Served:
    """A server of its own on a folder, the seconds until it was ready, and a client of it."""

    def __init__(self, folder: Path) -> None:
        command = [str(Path(sys.executable).with_name("errata")), "serve", "--port", "0"]
        command += ["--data-dir", str(folder), "--log-level", "warning", "--threads", "1"]
        began = time.perf_counter()
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = (line for line in self.process.stderr if line.startswith("errata: ready on "))
        self.client = httpx.Client(base_url=next(said).split()[3], timeout=300)
        self.ready_s = time.perf_counter() - began

    def memory_mb(self) -> float:
        """Resident, as the kernel says."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def computing_s(self) -> float:
        """Seconds of a processor so far, of all threads."""
        told = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
        return (int(told[11]) + int(told[12])) / 100.0

    def ask_ms(self, **more: Any) -> float:
        image = base64.b64encode(encode_png(picture(5))).decode("ascii")
        body = {"prompt": PROMPT, "image": image, "max_new_tokens": 12, **more}
        return self.milliseconds("POST", "/generate", json=body)[0]

    def milliseconds(self, method: str, path: str, **more: Any) -> tuple[float, int]:
        """How long a request took, and how many bytes came back."""
        began = time.perf_counter()
        response = self.client.request(method, path, **more).raise_for_status()
        return (time.perf_counter() - began) * 1e3, len(response.content)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    server = Served(folder)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.communicate()


class Pager(threading.Thread):
    """Pages through all edits, over and over, until it is told to stop."""

    def __init__(self, server: Served) -> None:
        super().__init__()
        self._client = httpx.Client(base_url=server.client.base_url, timeout=300)
        self._is_over = threading.Event()
        self.pages_ms: list[float] = []

    def run(self) -> None:
        after = None
        while not self._is_over.is_set():
            began = time.perf_counter()
            page = self._client.get("/edits", params={"after": after} if after else {}).json()
            self.pages_ms.append((time.perf_counter() - began) * 1e3)
            after = page["last_id"] if page["has_more"] else None

    def stop(self) -> None:
        self._is_over.set()
        self.join()


def beside_lists(server: Served, questions: int) -> dict[str, float]:
    """R14: the 95th percentile of `/generate` beside the pager against alone, block by block."""
    ratios, pages = [], []
    for _ in range(_BLOCKS):
        alone = [server.ask_ms() for _ in range(questions)]
        pager = Pager(server)
        pager.start()
        beside = [server.ask_ms() for _ in range(questions)]
        pager.stop()
        ratios.append(_late(beside) / _late(alone))
        pages += pager.pages_ms
    return {
        "R14 p95 beside a pager / alone": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "page of 20, ms": statistics.median(pages),
    }


def _late(values: list[float]) -> float:
    return sorted(values)[int(0.95 * len(values))]


def after_a_restore(server: Served) -> dict[str, float]:
    """Everything is taken back; then the version before is asked for."""
    head = server.client.get("/versions").json()["version"]
    newest = server.client.get("/edits", params={"limit": 1}).json()["data"][0]["id"]
    server.client.post("/admin/rollback", json={"to_version": 0}).raise_for_status()
    before = server.memory_mb()
    found = {"first at_version, ms": server.ask_ms(at_version=head)}
    found["and MB more"] = server.memory_mb() - before
    found["one edit, ms"], found["bytes"] = server.milliseconds("GET", f"/edits/{newest}")
    query = {"after": head}
    found["its event, ms"], found["bytes of it"] = server.milliseconds(
        "GET", "/admin/events", params=query
    )
    return found


def doctor_s(folder: Path) -> float:
    command = [str(Path(sys.executable).with_name("errata")), "doctor", "--data-dir", str(folder)]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def measure(folder: Path, edits: int, questions: int) -> dict[str, float]:
    with served(folder) as server:
        found = {"edits": edits, "checked start, s": server.ready_s}
        found["computing, s"] = server.computing_s()
    with served(folder) as server:
        found |= {"R13 start, s": server.ready_s, "its computing, s": server.computing_s()}
        found["memory, MB"] = server.memory_mb()
        for _ in range(10):
            server.ask_ms()
        if edits:
            found |= after_a_restore(server)
            found |= beside_lists(server, questions)
            found["doctor beside the server, s"] = doctor_s(folder)
    return found


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--edits", default="0,1000,20000")
    parser.add_argument("--folder", type=Path, help="where stores lie, made if they are not there")
    parser.add_argument("--questions", type=int, default=40, help="of each block")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    rows = []
    for edits in map(int, options.edits.split(",")):
        data = folder / f"{edits}"
        if not data.exists():
            data.mkdir(parents=True)
            fill(data / "errata.db", edits, one_artifact(EditableModel.load()))
        rows.append(measure(data, edits, options.questions))
        print(json.dumps(rows[-1], indent=1), flush=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name, *(f"{row[name]:.1f}" if name in row else "" for row in rows)] for name in names]
    told = table(["", *(f"{row['edits']:.0f} edits" for row in rows)], cells)
    print(write("scale", "A server with many edits", [("One server after another", told)]))
    kept = {"machine": facts(), "rows": rows}
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-scale.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
