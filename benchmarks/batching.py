"""What one running batch buys, and what edits cost in it: ratios side by side in one run.

    python -m benchmarks.batching [--repeats 5] [--quick]

1. Sixteen questions in flight against the same sixteen one by one: in this server, and in a loop
   of transformers' `generate()`. Every side sees pictures that it has not seen before.
2. Edited against unedited rows at batch 1, 8 and 32. An edit's target is the model's own answer, so
   both sides generate the same tokens.
3. Thirty-two rows with an expert each against thirty-two with one and the same.

The sides take turns within each repeat; a ratio is the median over repeats, beside its extremes.
Requests go through the scheduler that serves (`app/device/rows.py`), on this thread. Time is the
processor's, on one thread: what else the machine does is no part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from app.device.messages import Done, Generate, Reply
from app.device.rows import RowScheduler
from benchmarks.report import RESULTS, table, write
from benchmarks.serving_ratios import DESCRIBE, entry, picture, remember
from editing_core.backbones.images import to_pil
from editing_core.backbones.loading import find_checkpoint
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts
from editing_core.generation import GenerationRow
from editing_core.types import GenerationResult

IN_FLIGHT = 16
SHORT = "What colour is the field?"
Rows = Sequence[GenerationRow]
Side = Callable[[Rows], int]
"""Answers rows, and returns how many tokens it made."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Tokens a second of one side against another; more than 1 where the first is faster."""

    what: str
    first: float
    second: float
    ratio: float
    least: float
    most: float


def compare(
    what: str,
    sides: tuple[Side, Side],
    rows: Callable[[int, int], Rows],
    *,
    repeats: int,
) -> Ratio:
    """Take turns on the rows of each repeat and side; a first repeat warms up and is dropped."""
    rates: list[tuple[float, float]] = []
    for repeat in range(repeats + 1):
        first, second = (_rate(side, rows(repeat, i)) for i, side in enumerate(sides))
        if repeat:
            rates.append((first, second))
    ratios = [first / second for first, second in rates]
    first, second = (statistics.median(each) for each in zip(*rates, strict=True))
    return Ratio(what, first, second, statistics.median(ratios), min(ratios), max(ratios))


def _rate(side: Side, rows: Rows) -> float:
    start = time.process_time()
    tokens = side(rows)
    return tokens / (time.process_time() - start)


def together(model: EditableModel, rows: Sequence[GenerationRow]) -> list[GenerationResult]:
    """A request for each row, all of them in flight at once."""
    ended: dict[int, GenerationResult] = {}

    def hear(reply: Reply) -> None:
        if isinstance(reply, Done):
            assert isinstance(reply.result, list)
            ended[reply.id] = reply.result[0]

    scheduler = RowScheduler(model, hear, rows_at_once=32, tokens_at_once=1_000_000)
    for number, row in enumerate(rows):
        scheduler.add(Generate(number, (row,)))
    while scheduler.is_busy:
        scheduler.turn()
    return [ended[number] for number in range(len(rows))]


def tokens(results: Sequence[GenerationResult]) -> int:
    return sum(result.completion_tokens for result in results)


def questions(place: int, repeat: int, side: int) -> list[GenerationRow]:
    """Long and short answers by turns, about pictures that the model has not looked at before."""
    first = 90_000 + 100 * repeat
    images = [picture(first + i).copy() for i in range(IN_FLIGHT)]
    for image in images:
        image[0, 0, 0] = 2 * place + side  # one value is its own
    return [GenerationRow(DESCRIBE if i % 2 else SHORT, each) for i, each in enumerate(images)]


def stock_loop() -> Callable[[Sequence[GenerationRow]], int]:
    """transformers' own `generate()`, one request after another."""
    folder = find_checkpoint(None).model
    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)

    def answer(row: GenerationRow) -> int:
        assert row.image is not None
        content = [{"type": "image"}, {"type": "text", "text": row.prompt}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(images=[to_pil(row.image)], text=text, return_tensors="pt")
        limit = row.sampling.max_new_tokens
        made = model.generate(**inputs, max_new_tokens=limit, do_sample=False)
        return int(made.shape[1] - inputs["input_ids"].shape[1])

    return lambda rows: sum(answer(row) for row in rows)


def in_flight(model: EditableModel, repeats: int) -> list[Ratio]:
    stock = stock_loop()

    def at_once(rows: Rows) -> int:
        return tokens(together(model, rows))

    def one_by_one(rows: Rows) -> int:
        return sum(tokens(together(model, [row])) for row in rows)

    named = {
        f"{IN_FLIGHT} in flight / one by one": (at_once, one_by_one),
        f"{IN_FLIGHT} in flight / a loop of transformers' generate()": (at_once, stock),
        "one by one / a loop of transformers' generate()": (one_by_one, stock),
    }
    return [
        compare(what, sides, partial(questions, place), repeats=repeats)
        for place, (what, sides) in enumerate(named.items())
    ]


def edited(model: EditableModel, repeats: int, batches: Sequence[int]) -> list[Ratio]:
    seeds = range(50_000, 50_000 + max(batches))
    plain = [GenerationRow(DESCRIBE, picture(seed)) for seed in seeds]
    answers = together(model, plain)
    entries = [
        entry(model, seed, DESCRIBE, result.text)
        for seed, result in zip(seeds, answers, strict=True)
    ]
    pinned = remember(model, entries)
    rows = [GenerationRow(row.prompt, row.image, snapshot=pinned) for row in plain]
    acting = sum(bool(result.decision.applied) for result in together(model, rows))
    print(f"{acting} of {len(rows)} edited rows have an edit that acts", file=sys.stderr)

    def at_once(rows: Rows) -> int:
        return tokens(together(model, rows))

    pairs = {f"edited / unedited, batch {n}": (rows[:n], plain[:n]) for n in batches}
    pairs[f"{len(rows)} experts / {len(rows)} times one"] = (rows, [rows[0]] * len(rows))
    return [
        compare(what, (at_once, at_once), partial(_side_of, pair), repeats=repeats)
        for what, pair in pairs.items()
    ]


def _side_of(pair: tuple[Rows, Rows], _repeat: int, side: int) -> Rows:
    return pair[side]


def same_tokens(model: EditableModel, rows: Sequence[GenerationRow]) -> str:
    """Greedy tokens of rows in mixed batches against each of them alone."""
    mixed = together(model, rows)
    same = sum(
        result.token_ids == model.generate([row])[0].token_ids
        for row, result in zip(rows, mixed, strict=True)
    )
    return f"Greedy tokens in mixed batches are those of each row alone: {same} of {len(rows)}."


def report(ratios: Sequence[Ratio]) -> str:
    header = ["", "first, tokens/s", "second, tokens/s", "ratio", "least", "most"]
    return table(
        header,
        [
            [r.what, f"{r.first:.0f}", f"{r.second:.0f}"]
            + [f"{value:.3f}" for value in (r.ratio, r.least, r.most)]
            for r in ratios
        ],
    )


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 1 if options.quick else options.repeats
    model = EditableModel.load()
    ratios = in_flight(model, repeats)
    ratios += edited(model, repeats, (1, 4) if options.quick else (1, 8, 32))
    rows = [row for repeat in range(2 if options.quick else 12) for row in questions(9, repeat, 0)]
    told = [report(ratios), same_tokens(model, rows)]
    print("\n\n".join(told))
    if not options.quick:
        write("batching", "One running batch", [("Side by side", "\n\n".join(told))])
        _keep(ratios, told[1], repeats=repeats)


def _keep(ratios: Sequence[Ratio], told: str, *, repeats: int) -> None:
    kept = {
        "machine": facts(),
        "repeats": repeats,
        "same_tokens": told,
        "ratios": [asdict(ratio) for ratio in ratios],
    }
    path = RESULTS / f"{datetime.now(UTC).date().isoformat()}-batching.json"
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
