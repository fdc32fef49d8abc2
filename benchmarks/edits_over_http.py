"""Do edits hold, and leave the rest alone? Asked over HTTP, as a user would see it.

    python -m benchmarks.edits_over_http [--edits 100] [--url http://127.0.0.1:8000]

Applies edits on unseen emblems one after another, then asks every probe with all of them in force.
Without `--url` it starts a server of its own on an empty data directory. Exits with 1 when a mark
is missed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator

import httpx
from PIL import Image
from rich.console import Console
from rich.progress import Progress, TaskID

from benchmarks.report import write
from editing_core.evaluation.edit_cases import edit_cases
from editing_core.evaluation.edit_protocol import (
    UNFINISHED,
    ProbeOutcome,
    figures_of,
    run_protocol,
)
from editing_core.evaluation.report import as_markdown
from editing_core.types import ImageArray

GOALS = {
    "reliability": 0.99,
    "text generality": 0.97,
    "image generality": 0.96,
    "text locality": 1.0,
    "image locality": 0.99,
}


class Client:
    """Edits and questions over HTTP."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=120)
        self.refusals: Counter[str] = Counter()

    def edit(self, image: ImageArray, prompt: str, target: str) -> bool:
        """Whether the server took the edit."""
        body = {"image": data_uri(image), "prompt": prompt, "target": target}
        answer = self._http.post("/edits", json=body)
        if answer.status_code == 422:
            self.refusals[answer.json()["error"]["code"]] += 1
            return False
        answer.raise_for_status()
        return True

    def ask(self, image: ImageArray | None, prompt: str, with_edits: bool) -> str:
        """The free greedy answer."""
        body = {
            "image": None if image is None else data_uri(image),
            "prompt": prompt,
            "edits": "on" if with_edits else "off",
        }
        answer = self._http.post("/generate", json=body)
        answer.raise_for_status()
        found = answer.json()
        return str(found["text"]) + ("" if found["finish_reason"] == "stop" else UNFINISHED)


def data_uri(image: ImageArray) -> str:
    """The picture as a PNG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@contextlib.contextmanager
def own_server(*options: str, patience: float = 120.0) -> Iterator[str]:
    """A server on a free port and an empty data directory, for as long as the block runs.

    `options` are those of `errata serve`; `patience` is how many seconds its start may take.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", "from app.cli import main; main()", "serve"]
        command += ["--port", str(port), "--data-dir", folder, *options]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_until_ready(url, server, patience)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], patience: float) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError("the server stopped at start; run `errata serve` to see why")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready within {patience:.0f} seconds")


def _misses(outcomes: list[ProbeOutcome]) -> str:
    lines = [
        f"- {o.kind}: {o.case.question_kind} of seed {o.case.seed}, target `{o.case.target}`, "
        f"answered `{o.answer.removesuffix(UNFINISHED)}`, unedited `{o.unedited}`"
        for o in outcomes
        if not o.is_right
    ]
    return "\n".join(lines) or "None."


def main() -> int:
    """Run and report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="a running server without edits of its own")
    arguments = parser.parse_args()
    cases = list(edit_cases(arguments.edits, seed=arguments.seed))
    bars: dict[str, TaskID] = {}
    server = contextlib.nullcontext(arguments.url) if arguments.url else own_server()
    with server as url, Progress(console=Console(stderr=True)) as shown:
        client = Client(url)

        def progress(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(name, total=total)
            shown.update(bars[name], completed=done)

        outcomes = run_protocol(cases, edit=client.edit, ask=client.ask, progress=progress)
    figures = figures_of(outcomes, GOALS)
    refused = ", ".join(f"{code}: {n}" for code, n in client.refusals.items()) or "none"
    sections = [
        ("Exact match of free greedy generation", as_markdown(figures)),
        ("Refusals", refused),
        ("Every miss", _misses(outcomes)),
    ]
    path = write("edits-over-http", f"{arguments.edits} edits over HTTP", sections)
    sys.stdout.write(f"{as_markdown(figures)}\n\nrefused: {refused}\nwritten to {path}\n")
    return 1 if any(figure.is_reached is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
