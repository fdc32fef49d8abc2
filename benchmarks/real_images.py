"""Real flags, edited all together and asked by free generation: what a user would see.

    python -m benchmarks.real_images --data PATH [--limit 100] [--in-process]

PATH holds flags/edits-dev.json (828 edits in the MMEdit field names) and the pictures it names. Two
runs. `together`: every edit in force, each record's probes asked; a refused edit is a miss.
`half-split`: the edits of half the countries, the other half's flags asked the same questions:
every answer must stay, near-identical designs reported apart. Whatever must stay is compared with
the model's answers before any edit; the column `editing off` asks with the edits in force, unused.

Without --url a server of its own is started on an empty data directory. --in-process asks a model
in this process instead, by the same steps: quicker for a look, not what is claimed. With --limit
nothing goes to results/. Exits with 1 when a goal is missed, with 2 when the data cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.answering import Advance, Answerer, InProcess, Server
from benchmarks.edits_over_http import own_server
from benchmarks.flag_protocol import Run, Watch, run_half_split, run_together
from benchmarks.flag_tables import (
    causes,
    causes_as_markdown,
    made_as_markdown,
    misses,
    refinement,
    refusals,
    refused,
    rows_as_markdown,
    rows_of,
)
from benchmarks.flags import NEAR_IDENTICAL, FlagData, read_flags
from benchmarks.report import write
from editing_core.editable_model import EditableModel
from editing_core.evaluation.datasets.records import DatasetError
from editing_core.evaluation.machine import commit, machine, versions

RUNS = {"together": run_together, "half-split": run_half_split}
NOTES = f"""Exact match of free greedy generation, stop token included. A refused edit is a miss.
Flags are near-identical when the mean absolute difference of their pixels, averaged down to 48 x 32
over white, is below {NEAR_IDENTICAL:g} of 255. The look-alike pairs are those the file marks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        data = read_flags(arguments.data).limited(arguments.limit)
    except DatasetError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 2
    runs: dict[str, Run] = {}
    with _answerer(arguments, data) as answerer, _progress() as shown:
        for name in arguments.runs:
            watch = _watch(shown, name)
            if name == "half-split":
                runs[name] = run_half_split(data, answerer, watch, seed=arguments.seed)
            else:
                runs[name] = run_together(data, answerer, watch)
    sections = _sections(runs)
    sys.stdout.write("\n\n".join(f"{heading}\n\n{body}" for heading, body in sections) + "\n")
    if arguments.limit is None:
        path = write(_name(arguments), _title(arguments), sections)
        _write_json(path.with_suffix(".json"), arguments, runs)
        sys.stdout.write(f"\nWritten to {path}, and every miss to the JSON file beside it\n")
    if arguments.json is not None:
        _write_json(arguments.json, arguments, runs)
    rows = [row for run in runs.values() for row in rows_of(run)]
    return 1 if any(row.figure.is_reached is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the data's folder, or its JSON")
    parser.add_argument("--limit", type=int, help="about so many edits, of whole countries")
    parser.add_argument(
        "--runs", nargs="+", choices=list(RUNS), default=list(RUNS), help="default: both"
    )
    parser.add_argument("--verify", choices=("strict", "report", "off"), default="strict")
    parser.add_argument("--seed", type=int, default=0, help="which half of the countries is edited")
    parser.add_argument("--json", type=Path, help="write figures and every miss to this file too")
    parser.add_argument("--url", help="a running server without edits of its own")
    parser.add_argument("--concurrency", type=int, default=8, help="questions asked at once")
    parser.add_argument("--in-process", action="store_true", help="no server: a model in here")
    parser.add_argument("--model", help="checkpoint folder or hub id (default: the embedded one)")
    parser.add_argument("--threads", type=int, help="CPU threads of the model")
    return parser


@contextlib.contextmanager
def _answerer(arguments: argparse.Namespace, data: FlagData) -> Iterator[Answerer]:
    if arguments.in_process:
        model = EditableModel.load(arguments.model)
        yield InProcess(model, data.root, verify=arguments.verify)
        return
    options = [] if arguments.model is None else ["--model", arguments.model]
    options += [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    started: AbstractContextManager[str] = (
        contextlib.nullcontext(arguments.url) if arguments.url else own_server(*options)
    )
    with started as url:
        server = Server(url, data.root, verify=arguments.verify, concurrency=arguments.concurrency)
        with contextlib.closing(server):
            if server.active_edits():
                raise SystemExit(f"{url} has edits of its own; start a server without any")
            yield server


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _watch(shown: Progress, run: str) -> Watch:
    @contextlib.contextmanager
    def watch(stage: str, total: int) -> Iterator[Advance]:
        task = shown.add_task(f"{run}: {stage}", total=total)
        yield lambda steps: shown.advance(task, steps)

    return watch


def _sections(runs: dict[str, Run]) -> list[tuple[str, str]]:
    sections = [("How it is counted", NOTES)]
    for name, run in runs.items():
        body = f"{made_as_markdown(run)}\n\n{rows_as_markdown(rows_of(run))}"
        near = sorted({f"{p.edit.country} ({p.note})" for p in run.probed if _is_near(p.kind)})
        if near:
            body += f"\n\nNear-identical to an edited flag: {', '.join(near)}."
        sections += [(f"Run: {name}", body), (f"Misses: {name}", causes_as_markdown(run))]
    return sections


def _is_near(kind: str) -> bool:
    return kind.startswith("near-identical")


def _way(arguments: argparse.Namespace) -> str:
    return "in-process" if arguments.in_process else "http"


def _name(arguments: argparse.Namespace) -> str:
    verify = "" if arguments.verify == "strict" else f"-{arguments.verify}"
    return f"real-images-{_way(arguments)}{verify}"


def _title(arguments: argparse.Namespace) -> str:
    return f"Real flags, {_way(arguments)}, verify {arguments.verify}"


def _write_json(path: Path, arguments: argparse.Namespace, runs: dict[str, Run]) -> None:
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cores": os.cpu_count(),
        "commit": commit(),
        "versions": versions(),
        "verify": arguments.verify,
        "way": _way(arguments),
        "seed": arguments.seed,
        "runs": {
            name: {
                "edits": len(run.edits),
                "refusals": refusals(run),
                "refinement": refinement(run),
                "figures": [row.as_json() for row in rows_of(run)],
                "causes": causes(run),
                "refused": refused(run),
                "misses": misses(run),
            }
            for name, run in runs.items()
        },
    }
    text = json.dumps(found, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
