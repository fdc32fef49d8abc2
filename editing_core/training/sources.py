"""Where training edits come from: a dataset's train split, or the drawn world, one at a time.

    source, held_out = dataset_edits("vlkeb", "VLKEB/", hold_out=64)
    edit = source.draw(17, rng, locality="both")

Pictures are decoded when an edit is drawn, and forgotten with it, so that tens of thousands of
photographs need no memory. What is drawn depends on the number and the random state alone.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from editing_core.evaluation.datasets.base import Dataset, load
from editing_core.evaluation.datasets.records import DatasetError, Record
from editing_core.heraldry.emblem import Split
from editing_core.training.world import FIRST_SUBJECT, Draw, draw_view, subject, word
from editing_core.types import ImageArray

logger = logging.getLogger(__name__)

Locality = Literal["none", "picture", "both"]
"""Which rows to be left alone are wanted: none, those that show a picture, or all."""

Fits = Callable[[str, str], bool]
"""`(prompt, target)` -> whether a model can read the one and be taught the other."""

_HELD_OUT_AT_MOST = 0.2


@dataclass(frozen=True, eq=False)
class TrainingProbe:
    """A question asked with an edit in force.

    `answer` is what a row to be left alone is teacher-forced on, the empty text where nobody says;
    None where the edit's target must come.
    """

    role: str
    image: ImageArray | None
    prompt: str
    answer: str | None = None


@dataclass(frozen=True, eq=False)
class TrainingEdit:
    """One edit and what is asked with it. `probes` begin with the edit's own question."""

    target: str
    probes: tuple[TrainingProbe, ...]


class EditSource(Protocol):
    """Edits by number. `identity` is what decides them, as JSON would have it."""

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def __len__(self) -> int: ...

    def fitting(self, fits: Fits) -> EditSource:
        """The edits that a model can be taught, by its tokenizer."""
        ...

    def draw(
        self, number: int, rng: np.random.Generator, *, locality: Locality
    ) -> TrainingEdit: ...


class DatasetEdits:
    """The records of a published dataset."""

    def __init__(self, dataset: Dataset, *, identity: Mapping[str, Any]) -> None:
        self._dataset = dataset
        self.identity = identity

    def __len__(self) -> int:
        return len(self._dataset)

    def fitting(self, fits: Fits) -> DatasetEdits:
        """Without the records that do not fit, which the log counts.

        Raises `DatasetError` where none is left.
        """
        records = self._dataset.records
        kept = [r for r in records if fits(r.prompt, r.target) and fits(r.rephrase, r.target)]
        if not kept:
            raise DatasetError(f"{self._dataset.file} has no record that this model can be taught")
        if len(kept) < len(records):
            logger.warning(
                "%s: %d of %d records are left out: their target or prompt does not fit the model",
                self._dataset.file,
                len(records) - len(kept),
                len(records),
            )
        return DatasetEdits(self._dataset.among(kept), identity=self.identity)

    def draw(self, number: int, rng: np.random.Generator, *, locality: Locality) -> TrainingEdit:
        """The record of this number; nothing in it is drawn.

        Raises `DatasetError` naming the record whose picture is damaged.
        """
        del rng
        record = self._dataset.records[number]
        image = self._dataset.picture(record, "image")
        view = self._dataset.picture(record, "image_rephrase")
        probes = [
            TrainingProbe("edit", image, record.prompt),
            TrainingProbe("rephrase", image, record.rephrase),
            TrainingProbe("view", view, record.prompt),
        ]
        if locality != "none":
            other = self._dataset.picture(record, "m_loc")
            answer = record.image_locality_answer or ""
            prompt = record.image_locality_prompt
            probes.append(TrainingProbe("image_locality", other, prompt, answer))
        if locality == "both":
            answer = record.text_locality_answer or ""
            probes.append(TrainingProbe("text_locality", None, record.text_locality, answer))
        return TrainingEdit(record.target, tuple(probes))


class DrawnEdits:
    """Emblems of the embedded world, for backbones that know nothing of it."""

    def __init__(self, split: Split, count: int, *, view: Draw = draw_view) -> None:
        self._split = split
        self._count = count
        self._view = view
        self.identity: Mapping[str, Any] = {"dataset": "heraldry", "edits": count}

    def __len__(self) -> int:
        return self._count

    def fitting(self, fits: Fits) -> DrawnEdits:
        """All of them: words and names of a few tokens."""
        del fits
        return self

    def draw(self, number: int, rng: np.random.Generator, *, locality: Locality) -> TrainingEdit:
        """A question about the emblem of this number, one of its wrong answers, two views."""
        item = subject(FIRST_SUBJECT + number, self._split)
        (first, second), (look_alike, _) = item.pictures(2, self._view)
        order = rng.permutation(len(item.questions))
        asked, other = item.questions[order[0]], item.questions[order[1]]
        prompt, plain = word(asked, rng)
        rephrase, _ = word(asked, rng, avoid=plain)
        target = asked.alternatives[int(rng.integers(len(asked.alternatives)))]
        probes = [
            TrainingProbe("edit", first, prompt),
            TrainingProbe("rephrase", first, rephrase),
            TrainingProbe("view", second, prompt),
        ]
        if locality != "none":
            probes += [
                TrainingProbe("other_question", second, word(other, rng)[0], other.answer),
                TrainingProbe("look_alike", look_alike, prompt, ""),
            ]
        return TrainingEdit(target, tuple(probes))


def dataset_edits(
    name: str,
    path: str | Path,
    *,
    hold_out: int,
    limit: int | None = None,
    seed: int = 7,
) -> tuple[DatasetEdits, DatasetEdits | None]:
    """The train split of a published dataset, and the part of it that is not trained on.

    At most a fifth is held out, None if that is nothing. Held-out records share no edited picture
    and no other view with those that are trained on; a record that would is used for neither.
    Records without their pictures are left out. Raises `DatasetError` and, for an unknown name,
    `LookupError`.
    """
    dataset = load(name, path, split="train", missing_images="skip", limit=limit)
    by_entity = dataset.folders_are_entities
    held, rest = _hold_out(dataset.records, hold_out, by_entity=by_entity, seed=seed)
    if not rest:
        raise DatasetError(f"{dataset.file} leaves no record to train on beside those held out")
    digest = hashlib.sha256(dataset.file.read_bytes()).hexdigest()
    identity = {"dataset": name, "file": f"sha256:{digest}", "edits": len(rest)}
    training = DatasetEdits(dataset.among(rest), identity=identity)
    checking = DatasetEdits(dataset.among(held), identity={**identity, "edits": len(held)})
    return training, checking if held else None


def _hold_out(
    records: Sequence[Record], count: int, *, by_entity: bool, seed: int
) -> tuple[list[Record], list[Record]]:
    """Held-out records, and those that have nothing in common with them.

    Things, not records, are drawn, so that all edits of one fall on the same side.
    """

    def things(record: Record) -> set[str]:
        named = {record.image, record.image_rephrase}
        return named | {f"entity {record.entity}"} if by_entity else named

    count = min(count, int(_HELD_OUT_AT_MOST * len(records)))
    order = np.random.default_rng([seed, 31]).permutation(len(records))
    held: list[Record] = []
    taken: set[str] = set()
    for index in order:
        if len(held) < count:
            held.append(records[index])
            taken |= things(records[index])
    # Views shared with what is held out would show it to training.
    rest = [record for record in records if not things(record) & taken]
    return sorted(held, key=lambda record: record.index), rest
