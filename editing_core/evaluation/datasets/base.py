"""The contract of a published dataset: its files and pictures in, `EditCase`s out.

    cases = load("vlkeb", "VLKEB/", missing_images="skip")
    for case in cases: ...
    print(cases.summary(), cases.leakage())

A dataset is a sequence. Texts and paths are read and checked when it is opened; pictures are
decoded when their case is asked for, so that thousands of photographs need no memory. Nothing is
written, nothing is fetched. A subclass names its files and folders, and reads what its records have
beyond the common eleven keys. Questions are asked as published: no loader's prefix or suffix is
added.

Raises `DatasetError` (file, record, field, what to do): on opening, and on a case whose picture
cannot be decoded.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self, overload

from editing_core.evaluation.datasets.cases import case_of
from editing_core.evaluation.datasets.image_folder import (
    OnMissing,
    find_folder,
    is_file,
    with_pictures,
)
from editing_core.evaluation.datasets.leakage import Leakage, measure_leakage
from editing_core.evaluation.datasets.pictures import PictureError, read_picture
from editing_core.evaluation.datasets.records import (
    BadRecord,
    DatasetError,
    Faults,
    Fields,
    Record,
    read_list,
)
from editing_core.evaluation.datasets.summary import Summary, summarise
from editing_core.evaluation.probes import EditCase
from editing_core.registry import DATASETS
from editing_core.types import ImageArray

Split = Literal["eval", "train"]


def load(
    name: str,
    path: str | Path,
    *,
    images: str | Path | None = None,
    split: Split = "eval",
    missing_images: OnMissing = "raise",
    limit: int | None = None,
) -> Dataset:
    """Open a registered dataset.

    `path` is the dataset's folder, in any of its usual layouts, or one JSON file of it. `images` is
    the folder that the records' pictures are relative to; without it, the usual places are tried.
    Records with a picture that is not there are an error, or with `missing_images="skip"` left out
    and counted. `limit` takes the first so many records. Raises `DatasetError` and, for an unknown
    name, `LookupError` naming the known ones.
    """
    opened: Dataset = DATASETS.resolve(name).open(
        Path(path), images=images, split=split, missing_images=missing_images, limit=limit
    )
    return opened


class Dataset(ABC, Sequence[EditCase]):
    """See the module's docstring."""

    name: ClassVar[str]
    question_kind: ClassVar[str]
    files: ClassVar[Mapping[Split, tuple[str, ...]]]
    """Where each split's file may lie, relative to the dataset's folder."""
    image_folders: ClassVar[tuple[str, ...]]
    """Where the pictures may lie, relative to the dataset's folder or to the JSON file's."""
    folders_are_entities: ClassVar[bool] = False

    def __init__(
        self, file: Path, images: Path, records: Sequence[Record], skipped: Mapping[str, int]
    ) -> None:
        self.file = file
        self.images = images
        self.records = tuple(records)
        self.skipped = dict(skipped)
        self._edited = {record.image for record in records} | {r.image_rephrase for r in records}
        self._slots = {(record.image, record.prompt) for record in records}

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        images: str | Path | None = None,
        split: Split = "eval",
        missing_images: OnMissing = "raise",
        limit: int | None = None,
    ) -> Self:
        """See `load`."""
        file = cls.find_file(path, split)
        records, empty = cls.read(file)
        if missing_images == "raise":
            records = records[:limit]
        roots = [Path(images)] if images else cls._image_roots(path, file)
        root = find_folder(roots, records, file)
        kept = with_pictures(records, root, file=file, missing=missing_images)
        if not kept:
            raise DatasetError(f"{file} has no record whose pictures are all under {root}")
        skipped = {"empty target": empty, "missing picture": len(records) - len(kept)}
        return cls(file, root, kept[:limit], skipped)

    @classmethod
    def find_file(cls, path: Path, split: Split) -> Path:
        """The JSON file of a split: `path` itself, or one of the usual places below it."""
        if is_file(path):
            return path
        for name in cls.files[split]:
            if is_file(path / name):
                return path / name
        raise DatasetError(
            f"{path} holds no {cls.name} {split} file: none of {', '.join(cls.files[split])}",
            hint="Give the dataset's folder, or the JSON file itself.",
        )

    @classmethod
    def read(cls, file: Path) -> tuple[list[Record], int]:
        """All records of a file, and how many were left out for their empty target."""
        records, empty, faults = [], 0, Faults(file)
        for index, raw in enumerate(read_list(file)):
            try:
                fields = Fields(raw)
                if not fields.any_text("alt"):  # every public loader leaves these out
                    empty += 1
                    continue
                records.append(cls.read_record(index, fields))
            except BadRecord as fault:
                faults.add(index, fault)
        faults.raise_any(f"Fix or remove these records; {cls.name}'s keys are in docs/datasets.md.")
        if not records:
            raise DatasetError(f"{file} holds no record with a target")
        return records, empty

    @classmethod
    def read_record(cls, index: int, fields: Fields) -> Record:
        """One record's common keys. Raises `BadRecord`."""
        return Record(
            index=index,
            prompt=fields.text("src"),
            target=fields.text("alt"),
            rephrase=fields.text("rephrase"),
            image=fields.picture("image"),
            image_rephrase=fields.picture("image_rephrase"),
            text_locality=fields.text("loc"),
            image_locality=fields.picture("m_loc"),
            image_locality_prompt=fields.text("m_loc_q"),
            before=fields.any_text("pred") if fields.has("pred") else None,
            text_locality_answer=fields.optional_text("loc_ans"),
            image_locality_answer=fields.optional_text("m_loc_a"),
        )

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> EditCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[EditCase]: ...
    def __getitem__(self, index: int | slice) -> EditCase | list[EditCase]:
        if isinstance(index, slice):
            return [self._case(record) for record in self.records[index]]
        return self._case(self.records[index])

    def summary(self) -> Summary:
        """What was read, and what in it deserves care."""
        return summarise(self.records, self.skipped, source=str(self.file))

    def leakage(self, train: str | Path | None = None) -> Leakage | None:
        """How much of this stands in the train split too; None where there is no train file.

        `train` is the train split's folder or file; without it, the usual places are tried.
        """
        try:
            file = self.find_file(Path(train) if train else self._folder(), "train")
        except DatasetError:
            if train:
                raise
            return None
        return measure_leakage(
            self.records,
            self.read(file)[0],
            train_file=str(file),
            with_entities=self.folders_are_entities,
        )

    def _folder(self) -> Path:
        """The dataset's folder, up from the JSON file by as much as its usual place says."""
        for names in self.files.values():
            for name in names:
                parts = Path(name).parts
                if self.file.parts[-len(parts) :] == parts:
                    return self.file.parents[len(parts) - 1]
        return self.file.parent

    def among(self, records: Sequence[Record]) -> Self:
        """The same files, of which only these records are used."""
        return type(self)(self.file, self.images, records, {})

    def picture(self, record: Record, key: str) -> ImageArray:
        """The pixels of one of a record's pictures, by the key that names it.

        Raises `DatasetError` where the file is damaged.
        """
        return self._pixels(record, key, dict(record.images)[key])

    def _case(self, record: Record) -> EditCase:
        pixels = [self._pixels(record, key, path) for key, path in record.images]
        return case_of(
            record, pixels, edited=self._edited, slots=self._slots, kind=self.question_kind
        )

    def _pixels(self, record: Record, key: str, path: str) -> ImageArray:
        try:
            return read_picture(self.images / path)
        except PictureError as error:
            raise DatasetError(
                f"{self.file}, record {record.index}: field {key}: {self.images / path} {error}",
                hint="Fetch that picture again, or remove the record.",
            ) from error

    @classmethod
    def _image_roots(cls, path: Path, file: Path) -> list[Path]:
        """Every usual place, nearest first, each once."""
        bases = [path if path.is_dir() else file.parent, *list(file.parents)[:3]]
        return list(dict.fromkeys(base / name for base in bases for name in cls.image_folders))
