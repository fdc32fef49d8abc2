"""How much later a stream's tokens come while edits are made: the device thread's own time.

    python -m benchmarks.steps_beside_edits [--rounds 5] [--edits 100] [--quick]

Two long streams run on a device thread, beside nothing, and beside strict edits that are encoded,
verified and refined one after another as the service does it. The two arms take turns. A gap is the
time between two tokens of a stream, by the processor's time of the device thread: what else the
machine does, and this process's other threads, are no part of it. Questions, short ones about
another picture, are asked one after another meanwhile and counted likewise.

`edits_beside_streams.py` measures the same at a client, where all that counts in.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from app.device.messages import (
    Cancel,
    Decide,
    Done,
    Encode,
    Failed,
    Generate,
    Refine,
    Reply,
    Request,
    Screen,
    Text,
)
from app.device.thread import DeviceThread
from benchmarks.report import RESULTS, table, write
from editing_core import stories
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts
from editing_core.experts.codec import decode_artifact, encode_artifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, Sampling
from editing_core.verification import verify

SEED = 95_001
TOKENS = 250


@dataclass
class Desk:
    """The other side of a device thread; notes when it replied, by the thread's own time."""

    model: EditableModel
    ends: dict[int, queue.SimpleQueue[Done | Failed]] = field(default_factory=dict)
    heard: dict[int, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._ids = itertools.count(1)
        self._clock: int | None = None
        self.thread = DeviceThread(
            self.model, self._hear, rows_at_once=32, tokens_at_once=1_000_000
        )
        self.thread.start()

    def _hear(self, reply: Reply) -> None:
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        if isinstance(reply, Text | Done):
            self.heard[reply.id].append(time.thread_time() * 1e3)
        if isinstance(reply, Done | Failed):
            self.ends[reply.id].put(reply)

    def now(self) -> float:
        """Milliseconds of the device thread's time, from any thread."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock) * 1e3

    def post(self, kind: type, *fields: Any, **more: Any) -> int:
        number = next(self._ids)
        self.ends[number], self.heard[number] = queue.SimpleQueue(), []
        message: Request | Cancel = kind(number, *fields, **more)
        self.thread.post(message)
        return number

    def result(self, number: int) -> Any:
        reply = self.ends[number].get()
        if isinstance(reply, Failed):
            raise reply.error
        return reply.result

    def ask(self, kind: type, *fields: Any, **more: Any) -> Any:
        return self.result(self.post(kind, *fields, **more))


class Editing:
    """Makes strict edits of one emblem's views, each beside the same others."""

    def __init__(self, desk: Desk, edits: int) -> None:
        self._desk = desk
        self._questions = draw_sample(SEED).questions
        self._numbers = itertools.count(edits)
        self._requests: dict[str, EditRequest] = {}
        self.made = 0
        self._base = self._filled(edits)

    def _filled(self, edits: int) -> Snapshot:
        entries = []
        for number in range(edits):
            request = self._request(number)
            entry = self._entry(f"e{number:06}", request)
            self._requests[entry.edit_id] = request
            entries.append(entry)
        return self._desk.model.empty_snapshot().evolve(1, activate=entries)

    def _request(self, number: int) -> EditRequest:
        question = self._questions[number % len(self._questions)]
        image = draw_sample(SEED, view=number).picture.image
        return EditRequest(image, question.wordings[0], question.alternatives[0])

    def _entry(self, edit_id: str, request: EditRequest) -> MemoryEntry:
        made = self._desk.ask(Encode, request, "liveedit")
        artifact = decode_artifact(encode_artifact(made))
        return MemoryEntry.of(edit_id, artifact, request, image_digest=f"sha256:{edit_id}")

    def until(self, stops: threading.Event) -> None:
        while not stops.is_set():
            request = self._request(next(self._numbers))
            entry = self._entry("new", request)
            story = verify(
                request,
                entry,
                base=self._base,
                tau=self._desk.model.router.tau,
                stock=self._desk.model.stock_questions,
            )
            self._tell(story)
            self.made += 1

    def _tell(self, story: stories.Story[Any]) -> None:
        reply: Any = None
        try:
            while True:
                reply = self._do(story.send(reply))
        except StopIteration:
            return

    def _do(self, step: stories.Step) -> Any:
        match step:
            case stories.Ask(rows):
                return self._desk.ask(Generate, rows, for_edit=True)
            case stories.Decide(rows):
                return self._desk.ask(Decide, rows)
            case stories.Screen(questions, edits):
                return self._desk.result(self._screen(questions, edits))
            case stories.Fetch(edit_ids):
                return [self._neighbour(edit_id) for edit_id in edit_ids]
            case stories.Refine(edit_id, wanted, most):
                return self._desk.ask(Refine, edit_id, wanted, most, "answers")

    def _screen(self, questions: Sequence[str], edits: Sequence[MemoryEntry]) -> int:
        said = Screen.of(0, questions, edits)
        return self._desk.post(Screen, said.questions, said.edits)

    def _neighbour(self, edit_id: str) -> stories.Neighbour:
        request = self._requests[edit_id]
        return stories.Neighbour(edit_id, request.image, request.prompt, request.target)


@dataclass(frozen=True)
class Arm:
    gaps: list[float]
    questions: list[float]
    edits: int

    def figures(self) -> dict[str, float]:
        gap = statistics.quantiles(self.gaps, n=100)
        late = statistics.quantiles(self.questions, n=20)
        return {
            "gap, mean": statistics.fmean(self.gaps),
            "gap, median": gap[49],
            "gap, 95 %": gap[94],
            "gap, 99 %": gap[98],
            "question, median": statistics.median(self.questions),
            "question, 95 %": late[18],
        }


def read(desk: Desk, rows: Sequence[GenerationRow], asked: Iterator[GenerationRow]) -> Arm:
    """The gaps of these streams, and how long questions took meanwhile."""
    streams = [desk.post(Generate, (row,)) for row in rows]
    questions = []
    while any(desk.ends[number].empty() for number in streams):
        began = desk.now()
        number = desk.post(Generate, (next(asked),))
        desk.result(number)
        questions.append(desk.heard[number][-1] - began)
    gaps = [b - a for number in streams for a, b in itertools.pairwise(desk.heard[number])]
    return Arm(gaps, questions, 0)


def measure(desk: Desk, rounds: int, edits: int) -> list[tuple[Arm, Arm]]:
    """Without and with edits, round by round; a first round warms up and is dropped."""
    endless = Sampling(TOKENS, logit_bias=tuple((i, -100.0) for i in _stops(desk)))
    rows = [GenerationRow("Describe the emblem.", _other(n), endless) for n in range(2)]
    asked = (GenerationRow("What colour is the field?", _other(2)) for _ in itertools.count())
    editing, found = Editing(desk, edits), []
    for number in range(rounds + 1):
        alone = read(desk, rows, asked)
        stops, before = threading.Event(), editing.made
        thread = threading.Thread(target=editing.until, args=(stops,))
        thread.start()
        beside = read(desk, rows, asked)
        stops.set()
        thread.join()
        beside = Arm(beside.gaps, beside.questions, editing.made - before)
        print(alone.figures(), beside.figures(), beside.edits, file=sys.stderr, flush=True)
        if number:
            found.append((alone, beside))
    return found


def _stops(desk: Desk) -> Sequence[int]:
    return desk.model.backbone.stop_token_ids


def _other(number: int) -> Any:
    return draw_sample(SEED + 1 + number).picture.image


def report(found: Sequence[tuple[Arm, Arm]]) -> str:
    pairs = [(alone.figures(), beside.figures()) for alone, beside in found]
    rows = []
    for name in pairs[0][0]:
        ratios = [beside[name] / alone[name] for alone, beside in pairs]
        without, within = (
            statistics.median(side[name] for side in p) for p in zip(*pairs, strict=True)
        )
        row = [name, f"{without:.1f}", f"{within:.1f}"]
        rows.append([*row, *(f"{f(ratios):.2f}" for f in (statistics.median, min, max))])
    header = ["", "without edits, ms", "with edits, ms", "ratio", "least", "most"]
    gaps = sum(len(beside.gaps) for _, beside in found)
    edits = sum(beside.edits for _, beside in found)
    return f"{table(header, rows)}\n\n{len(found)} rounds, {gaps:,} gaps beside {edits} edits."


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edits", type=int, default=100, help="edits in force before")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, edits = (1, 4) if options.quick else (options.rounds, options.edits)
    desk = Desk(EditableModel.load())
    found = measure(desk, rounds, edits)
    desk.thread.stop()
    told = report(found)
    print(told)
    if not options.quick:
        write(
            "steps-beside-edits",
            "Tokens of a stream while edits are made",
            [("Side by side", told)],
        )
        kept = {
            "machine": facts(),
            "rounds": [
                {"without": a.figures(), "with": b.figures(), "edits": b.edits} for a, b in found
            ],
        }
        path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-steps-beside-edits.json"
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
