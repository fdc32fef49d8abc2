"""What a strict edit costs among look-alikes: 10, 100 and 1,000 of them, side by side in one run.

    python -m benchmarks.verification [--against CHECKOUT] [--repeats 9] [--worlds mixed] [--quick]

All edits are of one emblem, each of another view of it, so every picture finds every edit. In the
world `mixed` they ask all that can be asked about it by turns; in `one question` all ask the same,
so that as many neighbours as verification ever asks take part. An edit of one more view is made and
verified strictly, in this library's `EditSession`, and its version is forgotten again.

Sizes take turns, and with `--against` so does another checkout of this project, in a process of its
own. A cost is the processor's time on one thread: what else the machine does is no part of it. What
the model did is counted beside it: columns that a decoder block read, of encoding and of all that
verification asks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

SIZES = (10, 100, 1000)
WORLDS = ("mixed", "one question")
SEED = 95_001
HERE = "this one"
Figures: TypeAlias = dict[str, float]


class Worker:
    """A process that makes edits in one world with one checkout's code."""

    def __init__(self, checkout: Path, world: str, sizes: Sequence[int], keep: Path | None) -> None:
        command = [sys.executable, __file__, "--world", world]
        command += ["--sizes", ",".join(map(str, sizes))]
        command += ["--keep", str(keep)] if keep else []
        environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=checkout,
            env=environment,
            text=True,
        )

    def edit(self, size: int, number: int) -> Figures:
        """One strict edit beside `size` others."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(size, number, file=self._process.stdin, flush=True)
        figures: Figures = json.loads(self._process.stdout.readline())
        return figures

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def work(world: str, sizes: Sequence[int], keep: Path | None) -> None:
    """The worker's side: make the world, then an edit for each line that comes."""
    import torch

    from editing_core.editable_model import EditableModel
    from editing_core.editing import EditSession
    from editing_core.heraldry.sample import draw_sample
    from editing_core.types import EditRequest

    torch.set_num_threads(1)
    folder = None if keep is None else keep / world.replace(" ", "-")
    model: Any = _Remembering(EditableModel.load(), folder)
    columns = _Columns(model.backbone.layers)
    questions = draw_sample(SEED).questions if world == "mixed" else draw_sample(SEED).questions[:1]

    def request(number: int) -> EditRequest:
        question = questions[number % len(questions)]
        image = draw_sample(SEED, view=number).picture.image
        return EditRequest(image, question.wordings[0], question.alternatives[0])

    session = EditSession(model, verify="off")
    snapshots = {}
    for number in range(max(sizes)):
        session.edit(request(number))
        if number + 1 in sizes:
            snapshots[number + 1] = session.snapshot
    model.keep = None  # what is measured is made anew
    for line in sys.stdin:
        size, number = map(int, line.split())
        asked = request(max(sizes) + number)
        session.snapshot, session.verify = snapshots[size], "off"
        encode = _measured(columns, partial(session.edit, asked))
        session.snapshot, session.verify = snapshots[size], "strict"
        whole = _measured(columns, partial(session.edit, asked))
        print(
            json.dumps(
                {
                    "ms": whole["ms"],
                    "verify_ms": whole["ms"] - encode["ms"],
                    "encode_columns": encode["columns"],
                    "verify_columns": whole["columns"] - encode["columns"],
                    "accepted": whole["accepted"],
                }
            ),
            flush=True,
        )


class _Remembering:
    """A model whose first edits, in their order, are read from a folder if they are there.

    With `keep` None it is as any other.
    """

    def __init__(self, model: Any, keep: Path | None) -> None:
        self._model = model
        self.keep = keep
        self._made = 0
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, request: Any, **more: Any) -> Any:
        from editing_core.experts.codec import decode_artifact, encode_artifact

        if self.keep is None:
            return self._model.encode(request, **more)
        file = self.keep / f"{self._made}.safetensors"
        self._made += 1
        if not file.exists():
            file.write_bytes(encode_artifact(self._model.encode(request, **more)))
        return decode_artifact(file.read_bytes())


def _measured(columns: _Columns, make: Any) -> Figures:
    columns.count = 0
    began = time.process_time()
    outcome = make()
    elapsed = (time.process_time() - began) * 1e3
    return {"ms": elapsed, "columns": columns.count, "accepted": float(outcome.accepted)}


class _Columns:
    """Counts what the decoder's blocks read: rows times columns, padding and all."""

    def __init__(self, layers: Any) -> None:
        self.count = 0
        for layer in layers:
            layer.register_forward_pre_hook(self._saw, with_kwargs=True)

    def _saw(self, _layer: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        self.count += hidden.shape[0] * hidden.shape[1]


Cell: TypeAlias = tuple[str, str, int]
"""World, checkout, size."""


def measure(
    checkouts: Mapping[str, Path],
    worlds: Sequence[str],
    sizes: Sequence[int],
    repeats: int,
    keep: Path | None = None,
) -> dict[Cell, list[Figures]]:
    """The figures of every cell, one a repeat; a first repeat warms up and is dropped."""
    found: defaultdict[Cell, list[Figures]] = defaultdict(list)
    for world in worlds:
        with _workers(checkouts, world, sizes, keep) as workers:
            for repeat in range(repeats + 1):
                for size in sizes:
                    for name, worker in workers.items():
                        figures = worker.edit(size, repeat)
                        print(world, name, size, figures, file=sys.stderr, flush=True)
                        if repeat:
                            found[world, name, size].append(figures)
    return found


@contextmanager
def _workers(
    checkouts: Mapping[str, Path], world: str, sizes: Sequence[int], keep: Path | None
) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        workers = {name: Worker(path, world, sizes, keep) for name, path in checkouts.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        yield workers


def rows_of(found: Mapping[Cell, Sequence[Figures]], sizes: Sequence[int]) -> list[list[str]]:
    """The table's rows; the ratio is to the smallest size, repeat by repeat."""
    rows = []
    for (world, name, size), figures in found.items():
        whole = [each["ms"] for each in figures]
        smallest = [each["ms"] for each in found[world, name, sizes[0]]]
        ratio = statistics.median(a / b for a, b in zip(whole, smallest, strict=True))
        rows.append(
            [
                world,
                name,
                f"{size:,}",
                f"{statistics.median(whole):.0f}",
                f"{min(whole):.0f} to {max(whole):.0f}",
                f"{statistics.median(each['verify_ms'] for each in figures):.0f}",
                f"{statistics.median(each['verify_columns'] for each in figures):,.0f}",
                f"{statistics.median(each['encode_columns'] for each in figures):,.0f}",
                f"{ratio:.2f}",
                f"{sum(each['accepted'] for each in figures):.0f} of {len(figures)}",
            ]
        )
    return rows


HEADER = [
    "world",
    "code",
    "look-alikes",
    "strict edit, ms",
    "from, to",
    "of it verification, ms",
    "columns, verification",
    "columns, encoding",
    f"against {SIZES[0]}",
    "accepted",
]


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, help="another checkout, to take turns with")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--keep", type=Path, help="a folder in which made edits are kept")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--world", choices=WORLDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [2, 4] if options.quick else [int(size) for size in options.sizes.split(",")]
    if options.world:
        work(options.world, sizes, options.keep)
        return
    # Late: a worker runs this file with another checkout's modules.
    from benchmarks.report import RESULTS, table, write
    from editing_core.evaluation.machine import facts

    checkouts = {HERE: Path(__file__).resolve().parents[1]}
    if options.against:
        checkouts["before"] = options.against.resolve()
    repeats = 1 if options.quick else options.repeats
    found = measure(checkouts, options.worlds.split(","), sizes, repeats, options.keep)
    told = table(HEADER, rows_of(found, sizes))
    print(told)
    if not options.quick:
        write("verification", "A strict edit among look-alikes", [("Side by side", told)])
        kept = {
            "machine": facts(),
            "cells": [
                {"world": world, "code": name, "look_alikes": size, "repeats": figures}
                for (world, name, size), figures in found.items()
            ],
        }
        path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-verification.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
