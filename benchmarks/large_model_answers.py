"""Tokens per second without edits, with edits that do not fire, and with one that does."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks import large_model_page as page
from benchmarks.large_model_page import EDITORS, Cells
from benchmarks.serving_ratios import remember, take_turns
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.heraldry.sample import draw_sample
from editing_core.types import EditArtifact, EditRequest, ImageArray, Sampling

ASKED = "Describe the emblem."
TAUGHT = "a small correction"
PICTURES = 2
"""The rows of a batch show them in turn."""


def sides_of(
    model: EditableModel, others: Sequence[MemoryEntry], *, new_tokens: int
) -> list[list[GenerationRow]]:
    """The rows of the largest batch on every side; `others` are edits about something else."""
    sampling = Sampling(max_new_tokens=new_tokens)
    images = [draw_sample(110_000 + number).picture.image for number in range(PICTURES)]
    requests = [EditRequest(image, ASKED, TAUGHT) for image in images]
    snapshots: list[list[Snapshot | None]] = [[None] * PICTURES]
    snapshots.append([remember(model, _silent(model, others, images))] * PICTURES)
    for editor in EDITORS:
        made = [entry_of(editor, model.encode(r, editor=editor), r) for r in requests]
        # One edit in each row's snapshot: what one of them costs, and no more.
        snapshots.append([remember(model, [entry]) for entry in made])
    return [
        [
            GenerationRow(ASKED, images[number % PICTURES], sampling, side[number % PICTURES])
            for number in range(max(page.BATCHES))
        ]
        for side in snapshots
    ]


def answer(
    model: EditableModel, sides: Sequence[Sequence[GenerationRow]], rounds: int
) -> dict[str, Cells]:
    """Tokens per second of every side, the first of which is unedited."""
    found: dict[str, Cells] = {}
    for batch in page.BATCHES:
        timed = take_turns(rounds, [_generates(model, rows[:batch]) for rows in sides])
        for name, rows, seconds in zip(page.SIDES, sides, timed, strict=True):
            ratios = [a / b for a, b in zip(timed[0], seconds, strict=True)]
            snapshot = rows[0].snapshot
            fired = sum(bool(result.decision.applied) for result in model.generate(rows[:batch]))
            found[f"batch {batch}, {name}"] = {
                page.RATE: 1 / statistics.median(seconds),
                page.RATIO: statistics.median(ratios),
                page.HELD_EDITS: 0 if snapshot is None else len(snapshot),
                page.ACTED: f"{fired} of {batch}",
            }
    return found


def entry_of(edit_id: str, artifact: EditArtifact, request: EditRequest) -> MemoryEntry:
    """An edit that is in force."""
    return MemoryEntry(edit_id, artifact, f"sha256:{edit_id}", request.prompt)


def _silent(
    model: EditableModel, entries: Sequence[MemoryEntry], images: Sequence[ImageArray]
) -> list[MemoryEntry]:
    """Those that do not fire on these pictures: random features tell pictures apart badly."""
    held = remember(model, entries)
    rows = [GenerationRow(ASKED, image, Sampling(max_new_tokens=1), held) for image in images]
    fired = {c.edit_id for result in model.generate(rows) for c in result.decision.applied}
    return [entry for entry in entries if entry.edit_id not in fired]


def _generates(model: EditableModel, rows: Sequence[GenerationRow]) -> Callable[[], int]:
    return lambda: sum(result.completion_tokens for result in model.generate(rows))
