"""What one running batch buys, and what edits cost in it: ratios side by side in one run.

    python -m benchmarks.batching [--repeats 5] [--edits 1000] [--quick]

R1  unedited rows beside 0 and 1,000 edits, against rows without any
R2  edited against unedited rows at batch 1, 8 and 32, among 1,000 edits: questions that were asked
    before, and questions that are all new
R3  thirty-two experts against one and the same expert on the same thirty-two rows
R4  four experts fused against one
R5  sixteen questions in flight against the same one by one, and against a loop of transformers'
    `generate()`; and one at a time against that loop. Pictures are new to every side.
R9  five questions about one picture against one question about it, prefill alone, with what prompts
    begin with kept and not; pictures are new to every side

The sides take turns within each repeat; a ratio is the median over repeats, beside its extremes.
An edit's target is the model's own answer, so that edited and unedited rows generate the same
tokens (`edited_rows.py`). Requests go through the scheduler that serves (`app/device/rows.py`), on
this thread. Time is the processor's, on one thread: what else the machine does is no part of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial

import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from benchmarks.edited_rows import WORDINGS, EditedRows, forget_questions, snapshot_of
from benchmarks.report import RESULTS, write
from benchmarks.serving_ratios import DESCRIBE, picture
from benchmarks.side_by_side import Answers, Ratio, Rows, Side, compare, report, together, tokens
from editing_core.backbones.images import to_pil
from editing_core.backbones.loading import find_checkpoint
from editing_core.editable_model import EditableModel
from editing_core.evaluation.machine import facts
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import Sampling

IN_FLIGHT = 16
SHORT = "What colour is the field?"


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
        f"R5 {IN_FLIGHT} in flight / one by one": (at_once, one_by_one),
        f"R5 {IN_FLIGHT} in flight / a loop of transformers' generate()": (at_once, stock),
        "R5 one by one / a loop of transformers' generate()": (one_by_one, stock),
    }
    return [
        compare(what, sides, partial(questions, place), repeats=repeats)
        for place, (what, sides) in enumerate(named.items())
    ]


def in_batches(model: EditableModel, size: int) -> Side:
    """The rows, `size` in flight at one time."""

    def answer(rows: Rows) -> int:
        batches = (rows[i : i + size] for i in range(0, len(rows), size))
        return sum(tokens(together(model, batch)) for batch in batches)

    return answer


def taxes(
    model: EditableModel, made: EditedRows, repeats: int, batches: Sequence[int]
) -> list[Ratio]:
    """R1 to R4."""
    plain, acts = made.plain, made.edited
    none_near = snapshot_of(model, made.entries[len(plain) :])
    empty = model.empty_snapshot()
    several = snapshot_of(model, _times(made, 4))
    one_alone = snapshot_of(model, made.entries[: len(plain)])
    one_for_all = snapshot_of(model, _with_the_payload_of_the_first(made.entries[: len(plain)]))

    def with_(snapshot: Snapshot) -> Rows:
        return [replace(row, snapshot=snapshot) for row in plain]

    def sides_of(first: Rows, second: Rows, is_new: bool, _repeat: int, side: int) -> Rows:
        if is_new and side == 0:
            forget_questions(model, made)
        return (first, second)[side]

    found = []
    for size in batches:
        side, count = in_batches(model, size), 8 if size == 1 else len(plain)
        pairs: list[tuple[str, Rows, Rows]] = [
            (f"R1 unedited beside no edit / plain, batch {size}", with_(empty), plain),
            (f"R1 unedited beside many / plain, batch {size}", with_(none_near), plain),
            (f"R2 edited / unedited, asked before, batch {size}", acts, plain),
            (f"R2 edited / unedited, new questions, batch {size}", acts, plain),
            (f"R4 four experts / one, batch {size}", with_(several), with_(one_alone)),
        ]
        if size == max(batches):
            what = f"R3 {size} experts / {size} times one"
            pairs.append((what, with_(one_alone), with_(one_for_all)))
        for what, first, second in pairs:
            rows = partial(sides_of, first[:count], second[:count], "new" in what)
            found.append(compare(what, (side, side), rows, repeats=repeats))
    return found


def _times(made: EditedRows, times: int) -> list[MemoryEntry]:
    """Each row's own edit so many times over."""
    own = made.entries[: len(made.plain)]
    return [replace(entry, edit_id=f"{entry.edit_id}-{i}") for entry in own for i in range(times)]


def _with_the_payload_of_the_first(entries: Sequence[MemoryEntry]) -> list[MemoryEntry]:
    """The same keys, and one expert behind all of them."""
    first = entries[0].artifact
    return [
        replace(entry, artifact=replace(first, key=entry.artifact.key), target=entries[0].target)
        for entry in entries
    ]


def beginnings(model: EditableModel, repeats: int) -> list[Ratio]:
    """R9, in questions a second: five that cost as much as one make a ratio of 5."""

    def ask(rows: Rows, *, size: int, kept: int) -> int:
        """All of them about one picture; prefill alone."""
        short = [replace(row, sampling=Sampling(max_new_tokens=1)) for row in rows]
        ended = 0
        answer = Answers(model, kept)
        for i in range(0, len(short), size):
            ended += len(answer(short[i : i + size]))
        return ended

    def rows(place: int, repeat: int, side: int) -> Rows:
        image = picture(95_000 + repeat).copy()
        image[0, 0, 0] = 2 * place + side
        return [GenerationRow(text, image) for text in WORDINGS[:5]]

    kept = 2**28
    named: dict[str, tuple[Side, Side]] = {}
    for size, how in ((5, "at once"), (1, "one after another")):
        named[f"R9 five questions {how}, kept / not kept"] = (
            partial(ask, size=size, kept=kept),
            partial(ask, size=size, kept=0),
        )
        named[f"R9 five questions {how}, kept / one"] = (
            partial(ask, size=size, kept=kept),
            lambda all_of_them: ask(all_of_them[:1], size=1, kept=0),
        )
    return [
        compare(what, sides, partial(rows, place), repeats=repeats)
        for place, (what, sides) in enumerate(named.items())
    ]


def mixed(model: EditableModel, made: EditedRows, count: int) -> list[GenerationRow]:
    """Edited, unedited and text-only rows, of new pictures, of shared ones, and of many lengths."""
    rows: list[GenerationRow] = []
    for i in range(count):
        other = made.plain[(7 * i) % len(made.plain)]
        rows.append(
            (
                made.edited[i % len(made.edited)],
                replace(made.plain[i % len(made.plain)], prompt=SHORT),
                replace(other, image=picture(97_000 + i)),
                replace(made.edited[i % len(made.edited)], prompt=other.prompt),
                GenerationRow(other.prompt, None),
            )[i % 5]
        )
    return rows


def same_tokens(model: EditableModel, rows: Rows) -> str:
    """Greedy tokens of rows in mixed batches against each of them alone."""
    found = together(model, rows, beginnings_bytes=2**28)
    same = sum(
        result.token_ids == model.generate([row])[0].token_ids
        for row, result in zip(rows, found, strict=True)
    )
    shared = sum(bool(result.cached_tokens) for result in found)
    acting = sum(bool(result.decision.applied) for result in found)
    return (
        f"Greedy tokens in mixed batches are those of each row alone: {same} of {len(rows)}, "
        f"{acting} of them edited, {shared} run on from a beginning that was kept."
    )


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="one repeat, to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    repeats = 1 if quick else options.repeats
    model = EditableModel.load()
    made = EditedRows.make(model, rows=8 if quick else 32, edits=options.edits)
    ratios = taxes(model, made, repeats, (1, 8) if quick else (1, 8, 32))
    ratios += in_flight(model, repeats) + beginnings(model, repeats)
    same = same_tokens(model, mixed(model, made, 20 if quick else 200))
    told = f"{report(ratios)}\n\n{_price(ratios)}\n\n{same}"
    print(told)
    if not quick:
        write("batching", "One running batch", [("Side by side", told)])
        _keep(ratios, same, repeats=repeats)


def _price(ratios: Sequence[Ratio]) -> str:
    """Of five questions about one picture, in prefills of one."""
    prices = [
        f"{ratio.what.removeprefix('R9 ').removesuffix(', kept / one')} {5 / ratio.ratio:.2f}"
        for ratio in ratios
        if ratio.what.endswith("kept / one")
    ]
    return f"R9: in prefills of one question about a picture, {' and '.join(prices)}."


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
