"""From a correction sent to a correction live: edits and rollbacks over HTTP, one after another.

    python -m benchmarks.edit_latency [--edits 200] [--model FOLDER]

Starts a server of its own on an empty data directory. `verify: "off"` and `"strict"` take turns; a
refused edit is counted and left out of the times. The figures of the server's own stopwatch stand
beside the client's.
"""

from __future__ import annotations

import argparse
import base64
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from PIL import Image

from benchmarks.report import table, write
from editing_core.heraldry.sample import draw_sample

FIRST_SEED = 90_000
STAGES = ("encode", "verify", "commit", "total")


@contextmanager
def server(model: str | None) -> Iterator[httpx.Client]:
    """A client of a fresh server; the server ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("errata")), "serve", "--port", "0"]
        command += ["--data-dir", folder, "--log-level", "warning", "--threads", "1"]
        command += ["--model", model] if model else []
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            yield httpx.Client(base_url=_announced(process), timeout=60)
        finally:
            process.terminate()
            process.communicate()


def _announced(process: subprocess.Popen[str]) -> str:
    """The address in the line that says the server is ready."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("errata: ready on "):
            return line.split()[3]
    raise RuntimeError(f"the server ended with {process.wait()}")


def correction(seed: int, *, verify: str) -> dict[str, str]:
    """A wrong answer of the right kind, to be taught about an unseen emblem."""
    sample = draw_sample(seed)
    question = sample.questions[seed % len(sample.questions)]
    buffer = io.BytesIO()
    Image.fromarray(sample.picture.image).save(buffer, format="PNG")
    return {
        "image": base64.b64encode(buffer.getvalue()).decode("ascii"),
        "prompt": question.wordings[0],
        "target": question.alternatives[0],
        "verify": verify,
    }


def make_edits(
    client: httpx.Client, count: int, *, first_seed: int = FIRST_SEED
) -> tuple[list[list[str]], list[str], int]:
    """The table's rows, the ids of the edits made, and how many were refused."""
    milliseconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    ids, refused = [], 0
    for number in range(count):
        verify = ("off", "strict")[number % 2]
        body = correction(first_seed + number, verify=verify)
        start = time.perf_counter()
        response = client.post("/edits", json=body)
        elapsed = (time.perf_counter() - start) * 1e3
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            refused += 1
            continue
        edit = response.raise_for_status().json()
        ids.append(edit["id"])
        milliseconds[verify, "at the client"].append(elapsed)
        for stage in STAGES:
            if stage in edit["timings_ms"]:
                milliseconds[verify, stage].append(edit["timings_ms"][stage])
    return (
        [[*key, *percentiles(values)] for key, values in sorted(milliseconds.items())],
        ids,
        refused,
    )


def roll_back(client: httpx.Client, ids: Sequence[str]) -> list[str]:
    values = []
    for edit_id in ids:
        start = time.perf_counter()
        client.post(f"/admin/edits/{edit_id}/rollback").raise_for_status()
        values.append((time.perf_counter() - start) * 1e3)
    return percentiles(values)


def percentiles(values: Sequence[float]) -> list[str]:
    """Median, 95th percentile and worst, in milliseconds."""
    ordered = sorted(values)
    late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return [f"{figure:.1f}" for figure in (statistics.median(ordered), late, ordered[-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--model", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args()

    with server(arguments.model) as client:
        make_edits(client, 4, first_seed=FIRST_SEED - 4)  # warm up
        rows, ids, refused = make_edits(client, arguments.edits)
        taken_back = roll_back(client, ids)
    sections = [
        (
            f"POST /edits, {arguments.edits} in a row, {refused} refused",
            table(["verify", "stage", "median, ms", "95 %, ms", "worst, ms"], rows),
        ),
        (
            f"POST /admin/edits/{{id}}/rollback, {len(ids)} in a row",
            table(["median, ms", "95 %, ms", "worst, ms"], [taken_back]),
        ),
    ]
    sys.stdout.write("\n\n".join(f"{heading}\n\n{body}" for heading, body in sections) + "\n")
    if not arguments.no_write:
        path = write("edit-latency", "From a correction sent to a correction live", sections)
        sys.stdout.write(f"\nWritten to {path}\n")


if __name__ == "__main__":
    main()
