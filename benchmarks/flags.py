"""The flag edits: records in the MMEdit field names, what each asks, and which flags look alike.

DATA/flags/edits-dev.json       one edit a record; beside the common keys `fact`, `iso2`,
                                `image_rephrase_redrawn`, `m_loc_flag`, `m_loc_is_lookalike`
DATA/...                        the pictures, by the records' relative paths
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editing_core.evaluation.datasets.image_folder import find_folder, with_pictures
from editing_core.evaluation.datasets.pictures import read_picture
from editing_core.evaluation.datasets.records import (
    BadRecord,
    DatasetError,
    Faults,
    Fields,
    Record,
    read_list,
)
from editing_core.evaluation.datasets.vlkeb import Vlkeb

FILE = Path("flags/edits-dev.json")
NEAR_IDENTICAL = 20.0
"""Two flags are of near-identical design below this `distance`: they differ no more than two
drawings of one flag do (19 in 20 such pairs lie below). Chad and Moldova, Colombia and Ecuador,
Italy and Mexico are, and the territories with a Union Jack in the corner."""
_COMPARED_AT = (48, 32)


@dataclass(frozen=True, slots=True)
class Question:
    """A picture (relative path) or none, and what is asked."""

    picture: str | None
    prompt: str


@dataclass(frozen=True, slots=True)
class FlagEdit:
    """One record. `look_alike` is the flag that the file marks as easy to take for this one."""

    record: Record
    fact: str
    country: str
    is_redrawn: bool
    look_alike: str | None = None

    @property
    def target(self) -> str:
        return self.record.target

    @property
    def question(self) -> Question:
        """The edit's own picture and prompt."""
        return Question(self.record.image, self.record.prompt)


@dataclass(frozen=True, slots=True)
class FlagData:
    """Checked records and the folder that their pictures are relative to."""

    root: Path
    edits: tuple[FlagEdit, ...]

    def limited(self, count: int | None) -> FlagData:
        """At least `count` edits, of whole countries: a flag keeps the other edits it is told from.

        Countries come in the file's order, which is shuffled.
        """
        if count is None or count >= len(self.edits):
            return self
        kept: list[FlagEdit] = []
        for country in dict.fromkeys(edit.country for edit in self.edits):
            if len(kept) >= count:
                break
            kept += [edit for edit in self.edits if edit.country == country]
        return replace(self, edits=tuple(kept))

    def halves(self, seed: int) -> tuple[list[FlagEdit], list[FlagEdit]]:
        """The edits of one half of the countries, and of the other."""
        countries = sorted({edit.country for edit in self.edits})
        random.Random(seed).shuffle(countries)
        first = set(countries[: len(countries) // 2])
        edited = [edit for edit in self.edits if edit.country in first]
        return edited, [edit for edit in self.edits if edit.country not in first]

    def distance(self, one: str, other: str) -> float:
        """Mean absolute difference of two flags' pixels, 0 to 255.

        Both are laid over white and averaged down to 48 x 32, so neither shape nor detail counts.
        """
        return float(np.abs(_small(self.root / one) - _small(self.root / other)).mean())

    def nearest(self, flag: str, others: Iterable[str]) -> tuple[float, str]:
        """The least distance from `flag` to any of the others, and which that is."""
        return min((self.distance(flag, other), other) for other in others)


def read_flags(path: Path) -> FlagData:
    """Read the folder, or the JSON file itself. Raises `DatasetError` naming file and record."""
    file = path / FILE if path.is_dir() else path
    edits, faults = [], Faults(file)
    for index, raw in enumerate(read_list(file)):
        try:
            edits.append(_edit(index, Fields(raw)))
        except BadRecord as fault:
            faults.add(index, fault)
    faults.raise_any("Fetch the data again, or remove these records.")
    records = [edit.record for edit in edits]
    root = find_folder([path if path.is_dir() else path.parent, file.parent.parent], records, file)
    with_pictures(records, root, file=file, missing="raise")
    slots = [edit.question for edit in edits]
    if len(set(slots)) < len(slots):
        raise DatasetError(f"{file} edits a picture and prompt twice: no record could be probed")
    return FlagData(root, tuple(edits))


def _edit(index: int, fields: Fields) -> FlagEdit:
    return FlagEdit(
        record=Vlkeb.read_record(index, fields),
        fact=fields.text("fact"),
        country=fields.text("iso2"),
        is_redrawn=fields.flag("image_rephrase_redrawn"),
        look_alike=fields.picture("m_loc_flag") if fields.flag("m_loc_is_lookalike") else None,
    )


def look_alike_pairs(edits: Sequence[FlagEdit]) -> list[tuple[FlagEdit, FlagEdit]]:
    """Edits of one question on two flags that the file marks as look-alikes, each pair once."""
    by_question = {edit.question: edit for edit in edits}
    pairs: dict[frozenset[Question], tuple[FlagEdit, FlagEdit]] = {}
    for edit in edits:
        other = by_question.get(Question(edit.look_alike, edit.record.prompt))
        if edit.look_alike is not None and other is not None:
            pairs.setdefault(frozenset({edit.question, other.question}), (edit, other))
    return list(pairs.values())


@functools.cache
def _small(path: Path) -> NDArray[np.float32]:
    picture = Image.fromarray(read_picture(path))
    return np.asarray(picture.resize(_COMPARED_AT, Image.Resampling.BOX), dtype=np.float32)
