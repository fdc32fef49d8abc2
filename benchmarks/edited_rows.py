"""Edited and unedited rows that generate the same tokens, for what is measured side by side.

An edit's target is the model's own answer to the question of its row, so that both sides do the
same work but for the edits. Each row has a picture and a wording of its own. Further edits, on
pictures that nobody shows, make up the number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.serving_ratios import DESCRIBE, picture
from editing_core.editable_model import EditableModel
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.generation import GenerationRow
from editing_core.types import EditRequest

_STARTS = ("Describe", "Please describe", "Now describe", "Kindly describe", "Can you describe")
_THINGS = ("the emblem", "this emblem", "the whole emblem", "the emblem here", "that emblem")
_ENDS = (".", "?", " please.", " for me.", " to me.", " once.")
WORDINGS = tuple(
    f"{start} {thing}{end}"
    for thing, end, start in itertools.product(_THINGS, _ENDS, _STARTS)
    if f"{start} {thing}{end}" != DESCRIBE
)
"""Questions that ask the same, each of them another text."""


@dataclass(frozen=True, slots=True)
class EditedRows:
    """`plain[i]` and `edited[i]` are the same question; in the latter an edit of its own acts."""

    plain: Sequence[GenerationRow]
    edited: Sequence[GenerationRow]
    entries: Sequence[MemoryEntry]

    @classmethod
    def make(
        cls, model: EditableModel, *, rows: int, edits: int, first: int = 50_000
    ) -> EditedRows:
        """`rows` of them, of pictures from `first` on, among `edits` edits."""
        plain: list[GenerationRow] = []
        entries: list[MemoryEntry] = []
        for seed in itertools.count(first):
            if len(plain) == rows:
                break
            row = GenerationRow(WORDINGS[len(plain) % len(WORDINGS)], picture(seed))
            own = _edit_of(model, row, str(seed))
            if own is not None:
                plain.append(row)
                entries.append(own)
        entries += _unseen(entries[0], edits - rows, model.backbone.image_key_dim)
        pinned = snapshot_of(model, entries)
        return cls(plain, [replace(row, snapshot=pinned) for row in plain], entries)


def snapshot_of(model: EditableModel, entries: Sequence[MemoryEntry]) -> Snapshot:
    return model.empty_snapshot().evolve(1, activate=entries)


def forget_questions(model: EditableModel, rows: EditedRows) -> None:
    """As if none of them was ever asked; what the edits say of themselves stays known."""
    model.forget_questions()
    assert model.questions is not None
    model.questions.keys(list(dict.fromkeys(text for e in rows.entries for text in e.wordings)))


def _edit_of(model: EditableModel, row: GenerationRow, name: str) -> MemoryEntry | None:
    """An edit that acts on the row and answers as the model does by itself, if there is one."""
    assert row.image is not None
    (answer,) = model.generate([row])
    request = EditRequest(image=row.image, prompt=DESCRIBE, target=answer.text)
    made = MemoryEntry.of(name, model.encode(request), request, image_digest=f"sha256:{name}")
    (again,) = model.generate([replace(row, snapshot=snapshot_of(model, [made]))])
    acts = bool(again.decision.applied) and again.token_ids == answer.token_ids
    return made if acts else None


def _unseen(like: MemoryEntry, count: int, dim: int) -> list[MemoryEntry]:
    """Edits at image keys at random, which no picture is near to."""
    random = np.random.default_rng(7)
    keys = random.normal(size=(max(0, count), dim)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return [
        replace(
            like,
            edit_id=f"unseen-{i}",
            artifact=replace(like.artifact, key=replace(like.artifact.key, image=key)),
        )
        for i, key in enumerate(keys)
    ]
