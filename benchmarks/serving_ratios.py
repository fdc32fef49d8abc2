"""What a correction costs: edited against unedited, side by side in one run.

    python -m benchmarks.serving_ratios [--quick]

1. Tokens per second with and without an edit. The edit's target is the model's own answer, so both
   sides generate the very same tokens.
2. One unrelated question with 0 to 1,000 active edits: what the hard filter costs.
3. How long it takes to make an edit.

The sides take turns within each round, and a ratio is the median over rounds: what else the machine
does falls on both.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.report import table, write
from editing_core.editable_model import EditableModel
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditRequest, ImageArray

DESCRIBE = "Describe the emblem."
Measured = Callable[[], int]
"""Does the work once and returns how many tokens it made."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    batches: tuple[int, ...]
    edit_counts: tuple[int, ...]


FULL = Plan(rounds=30, batches=(1, 8, 32), edit_counts=(0, 10, 100, 1000))
QUICK = Plan(rounds=3, batches=(1, 4), edit_counts=(0, 20))


def picture(seed: int) -> ImageArray:
    return draw_sample(seed).picture.image


def entry(model: EditableModel, seed: int, prompt: str, target: str) -> MemoryEntry:
    image = picture(seed)
    artifact = model.encode(EditRequest(image=image, prompt=prompt, target=target))
    return MemoryEntry(str(seed), artifact, f"sha256:{seed}", prompt)


def remember(model: EditableModel, entries: Sequence[MemoryEntry]) -> Snapshot:
    return model.empty_snapshot().evolve(1, activate=entries)


def take_turns(rounds: int, sides: Sequence[Measured]) -> list[list[float]]:
    """Seconds per token of every side in every round; a first round warms up and is dropped."""
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        for side, kept in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            tokens = side()
            elapsed = (time.perf_counter() - start) / tokens
            if number:
                kept.append(elapsed)
    return seconds


def throughput(model: EditableModel, plan: Plan) -> str:
    """Tokens per second without and with edits, the same tokens on both sides."""
    seeds = range(50_000, 50_000 + max(plan.batches))
    plain = [GenerationRow(DESCRIBE, picture(seed)) for seed in seeds]
    answers = [result.text for result in model.generate(plain)]
    pinned = remember(
        model,
        [entry(model, seed, DESCRIBE, text) for seed, text in zip(seeds, answers, strict=True)],
    )
    edited = [GenerationRow(row.prompt, row.image, snapshot=pinned) for row in plain]

    rows = []
    for batch in plan.batches:
        sides = [_generates(model, plain[:batch]), _generates(model, edited[:batch])]
        without, within = take_turns(plan.rounds, sides)
        ratio = statistics.median(a / b for a, b in zip(without, within, strict=True))
        rates = [f"{1 / statistics.median(side):.0f}" for side in (without, within)]
        rows.append([str(batch), *rates, f"{ratio:.3f}"])
    same = sum(r.text == text for r, text in zip(model.generate(edited), answers, strict=True))
    header = ["batch", "unedited, tokens/s", "edited, tokens/s", "edited / unedited"]
    return f"{table(header, rows)}\n\nSame answer on both sides: {same} of {len(answers)}."


def _generates(model: EditableModel, rows: Sequence[GenerationRow]) -> Measured:
    return lambda: sum(result.completion_tokens for result in model.generate(rows))


def routing(model: EditableModel, plan: Plan) -> str:
    """One question about an unrelated picture, with more and more edits active."""
    made = [
        entry(model, 60_000 + number, DESCRIBE, "nothing to see")
        for number in range(max(plan.edit_counts))
    ]
    image = picture(70_000)
    sides = []
    for count in plan.edit_counts:
        snapshot = remember(model, made[:count]) if count else None
        sides.append(_generates(model, [GenerationRow(DESCRIBE, image, snapshot=snapshot)]))
    base, *_ = measured = take_turns(plan.rounds, sides)
    rows = [
        [
            f"{count:,}",
            f"{1 / statistics.median(side):.0f}",
            f"{statistics.median(a / b for a, b in zip(base, side, strict=True)):.3f}",
        ]
        for count, side in zip(plan.edit_counts, measured, strict=True)
    ]
    return table(["active edits", "tokens/s", "against none"], rows)


def edit_latency(model: EditableModel, plan: Plan) -> str:
    """Making the artifact: picture and states, keys, expert, as stored."""
    requests = [
        EditRequest(image=picture(80_000 + number), prompt=DESCRIBE, target="a small correction")
        for number in range(plan.rounds + 1)
    ]
    seconds = []
    for request in requests:
        start = time.perf_counter()
        model.encode(request)
        seconds.append(time.perf_counter() - start)
    kept = sorted(seconds[1:])
    median, worst = statistics.median(kept) * 1e3, kept[-1] * 1e3
    return table(["", "median, ms", "worst, ms"], [["encode", f"{median:.1f}", f"{worst:.1f}"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it runs")
    parser.add_argument("--model", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    torch.set_num_threads(arguments.threads)

    model = EditableModel.load(arguments.model)
    sections = [
        ("The same tokens, with and without an edit", throughput(model, plan)),
        ("An unrelated question beside many edits", routing(model, plan)),
        ("Making an edit", edit_latency(model, plan)),
    ]
    report = "\n\n".join(f"{heading}\n\n{body}" for heading, body in sections)
    sys.stdout.write(report + "\n")
    if not arguments.quick:
        path = write("serving-ratios", "Edited against unedited", sections)
        sys.stdout.write(f"\nWritten to {path}\n")


if __name__ == "__main__":
    main()
