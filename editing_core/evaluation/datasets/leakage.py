"""How much of an evaluation split stands in the train split: counted, told beside the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from editing_core.evaluation.datasets.records import Record
from editing_core.identity import slot_prompt

_Values = Callable[[Record], Iterable[object]]


@dataclass(frozen=True, slots=True)
class Shared:
    """One thing compared: `distinct` values of the evaluation split, `found` of them in training.

    `records` counts the evaluation records that hold a found one.
    """

    what: str
    found: int
    distinct: int
    records: int


@dataclass(frozen=True, slots=True)
class Leakage:
    """Every comparison between the two splits."""

    train_file: str
    records: int
    shared: tuple[Shared, ...]

    def __getitem__(self, what: str) -> Shared:
        return next(row for row in self.shared if row.what == what)

    def __str__(self) -> str:
        """A Markdown table."""
        lines = [
            f"Also in the train split ({self.train_file}):",
            "",
            "| what | distinct values shared | records touched |",
            "|---|---|---|",
        ]
        lines += [
            f"| {row.what} | {row.found:,} of {row.distinct:,} "
            f"| {row.records:,} of {self.records:,} |"
            for row in self.shared
        ]
        return "\n".join(lines)


def measure_leakage(
    records: Sequence[Record], train: Sequence[Record], *, train_file: str, with_entities: bool
) -> Leakage:
    """Compare by published path and, for texts, by NFC with single spaces."""
    compared: list[tuple[str, _Values, _Values]] = [
        ("edited picture, among the edited", _image, _image),
        ("edited picture, anywhere", _image, _any_image),
    ]
    if with_entities:
        compared.append(("entity folder", _entity, _entity))
    compared += [
        ("prompt", _prompt, _prompt),
        ("target", _target, _target),
        ("picture and prompt", _slot, _slot),
        ("rephrased prompt, among prompts and rephrasings", _rephrase, _wordings),
        ("text locality question", _text_locality, _text_locality),
        ("image locality picture and question", _image_locality, _image_locality),
    ]
    return Leakage(
        train_file,
        len(records),
        tuple(_shared(what, records, train, ours, theirs) for what, ours, theirs in compared),
    )


def _shared(
    what: str, records: Sequence[Record], train: Sequence[Record], ours: _Values, theirs: _Values
) -> Shared:
    known = {value for record in train for value in theirs(record)}
    values = {value for record in records for value in ours(record)}
    touched = sum(any(value in known for value in ours(record)) for record in records)
    return Shared(what, len(values & known), len(values), touched)


def _image(record: Record) -> list[object]:
    return [record.image]


def _any_image(record: Record) -> list[object]:
    return [path for _, path in record.images]


def _entity(record: Record) -> list[object]:
    return [record.entity]


def _prompt(record: Record) -> list[object]:
    return [slot_prompt(record.prompt)]


def _target(record: Record) -> list[object]:
    return [slot_prompt(record.target)]


def _slot(record: Record) -> list[object]:
    return [(record.image, slot_prompt(record.prompt))]


def _rephrase(record: Record) -> list[object]:
    return [slot_prompt(record.rephrase)]


def _wordings(record: Record) -> list[object]:
    return [slot_prompt(record.prompt), slot_prompt(record.rephrase)]


def _text_locality(record: Record) -> list[object]:
    return [slot_prompt(record.text_locality)]


def _image_locality(record: Record) -> list[object]:
    return [(record.image_locality, slot_prompt(record.image_locality_prompt))]
