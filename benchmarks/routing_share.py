"""What routing costs a request, at any number of edits: milliseconds of one core.

    python -m benchmarks.routing_share [--edits 10000] [--survivors 1,10,50] [--requests 200]

Edits are made up: image keys at random, prompts from the shipped corpus. A request on a picture
with `survivors` edits pays for the range search, for reading its question once, for comparing it
with their wordings, and for laying its picture beside theirs, as if all asked this and none were of
one picture. Keys of the edits are warm, as they are once an edit was made or asked for; question
and picture are new ones each time, as they are in the worst case: what is judged once is
remembered. A text-only request pays nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import table, write
from editing_core.editable_model import EditableModel
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.eyes.eyes import Eyes
from editing_core.eyes.sketch import SIZE, Sketch
from editing_core.questions.corpus import read_corpus
from editing_core.questions.encoder import QuestionEncoder
from editing_core.routing.wordings import TextMatch, match
from editing_core.types import EditArtifact, RoutingKey

_TAU = 0.83


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--survivors", default="1,10,50")
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = EditableModel.load()
    encoder = model.questions
    if encoder is None:
        raise SystemExit("there is no question encoder: make install")
    prompts = [intent.wordings[7] for intent in read_corpus()]
    asked = iter([w for intent in read_corpus() for w in intent.wordings[:4]])
    rng = np.random.default_rng(7)
    eyes = model.backbone.eyes
    if eyes is None:
        raise SystemExit("there are no eyes: make install")
    rows = []
    for survivors in map(int, options.survivors.split(",")):
        own = _unit(rng.normal(size=model.backbone.image_key_dim))
        snapshot = _snapshot(options.edits, survivors, own, prompts, rng)
        found = snapshot.image_candidates(own, _TAU)
        entries = [snapshot.entries[edit_id] for edit_id, _ in found]
        match(encoder, "warm", entries, prefer="balanced")
        search = _milliseconds(partial(snapshot.image_candidates, own, _TAU), options.requests)
        read = _milliseconds(lambda: encoder.query_keys(next(asked)), options.requests)
        compare = partial(_compare, encoder, asked, entries)
        both = _milliseconds(compare, options.requests)
        sketches = [_sketch(rng) for _ in range(survivors)]
        judge = partial(_judge, eyes, sketches, rng)
        judged = _milliseconds(judge, options.requests)
        costs = (search, read, both, judged, search + both + judged)
        rows.append([str(len(found)), *(f"{ms:.2f}" for ms in costs)])
    head = ["survivors", "range search", "reading the question", "and comparing it"]
    head += ["judging their pictures", "routing"]
    told = table(head, rows)
    print(told)
    if options.edits == 10_000 and options.requests == 200:
        print(write("routing-share", "Routing's share of a request, ms", [("10,000 edits", told)]))


def _compare(
    encoder: QuestionEncoder, asked: Iterator[str], entries: Sequence[MemoryEntry]
) -> TextMatch:
    return match(encoder, next(asked), entries, prefer="balanced")


def _judge(eyes: Eyes, sketches: Sequence[Sketch], rng: np.random.Generator) -> list[bool]:
    return eyes.same(_sketch(rng), sketches)


def _snapshot(
    count: int,
    survivors: int,
    own: NDArray[np.float32],
    prompts: list[str],
    rng: np.random.Generator,
) -> Snapshot:
    """`count` edits, `survivors` of them on the picture whose key is `own`."""
    keys = rng.normal(size=(count, len(own))).astype(np.float32)
    keys[:survivors] = own + 0.01 * keys[:survivors]
    entries = [
        MemoryEntry(
            f"e{i:06d}", _artifact(_unit(key)), "", prompts[i % len(prompts)], target=f"{i}"
        )
        for i, key in enumerate(keys)
    ]
    return Snapshot.empty(len(own)).evolve(1, activate=entries)


def _artifact(key: NDArray[np.float32]) -> EditArtifact:
    nothing = np.zeros((0, 0), dtype=np.float32)
    routing = RoutingKey(image=key, text=nothing, visual=nothing)
    return EditArtifact("none", 0, "all", {}, routing, "", "", "")


def _sketch(rng: np.random.Generator) -> Sketch:
    return rng.integers(-100, 101, SIZE, dtype=np.int8)


def _unit(key: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = (key / np.linalg.norm(key)).astype(np.float32)
    return made


def _milliseconds(work: Callable[[], object], times: int) -> float:
    """The median over `times` calls of this thread's own time, so that other work counts little."""
    spent = []
    for _ in range(times):
        began = time.thread_time()
        work()
        spent.append(1000.0 * (time.thread_time() - began))
    return statistics.median(spent)


if __name__ == "__main__":
    main()
