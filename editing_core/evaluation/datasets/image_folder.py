"""Where a dataset's pictures lie, and which of its records have all of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from editing_core.evaluation.datasets.records import BadRecord, DatasetError, Faults, Record

OnMissing = Literal["raise", "skip"]


def find_folder(roots: Sequence[Path], records: Sequence[Record], file: Path) -> Path:
    """The first of `roots` under which an edited picture of the records lies.

    Raises `DatasetError` naming every place that was tried.
    """
    for root in roots:
        if any(is_file(root / record.image) for record in records):
            return root
    raise DatasetError(
        f"the pictures of {file} (the first is {records[0].image}) are in none of "
        f"{', '.join(map(str, roots))}",
        hint="Name the folder that the records' paths start from as the image folder.",
    )


def with_pictures(
    records: Iterable[Record], root: Path, *, file: Path, missing: OnMissing
) -> list[Record]:
    """The records whose pictures are all there; the others are an error or left out."""
    kept, faults = [], Faults(file)
    known: dict[str, bool] = {}
    for record in records:
        for _, path in record.images:
            if path not in known:
                known[path] = is_file(root / path)
        absent = [(key, path) for key, path in record.images if not known[path]]
        if not absent:
            kept.append(record)
        elif missing == "raise":
            key, path = absent[0]
            faults.add(record.index, BadRecord(f"field {key}: there is no file {root / path}"))
    faults.raise_any("Fetch the pictures, or leave such records out: missing_images='skip'.")
    return kept


def is_file(path: Path) -> bool:
    """Whether a file is there; a name that no file system takes is not."""
    try:
        return path.is_file()
    except OSError:  # the name is too long, or lies behind a file
        return False
