"""One published record as a value, read strictly: what is wrong is said by file, record and field.

The MMEdit family (E-VQA, E-IC, VLKEB) shares eleven keys; `docs/datasets.md` says what each holds.
Texts are trimmed: 144 of the 1,000 E-IC evaluation targets carry white space at an end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from editing_core.errors import EditingError

_SHOWN = 10


class DatasetError(EditingError):
    """A benchmark's files cannot be used as they are. Nothing was loaded."""

    code: ClassVar[str] = "dataset_invalid"
    default_hint: ClassVar[str] = "Check the path, or fetch the files again; see docs/datasets.md."


class BadRecord(Exception):
    """One record's fault; collected, so that all of a file's faults are told at once."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A question that the edit implies the answer of."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Record:
    """One published edit. Pictures are paths relative to the image folder, as published.

    `before` is what the file says the model answered, None where it does not say. The answers to
    the locality questions are the file's, too; nothing is scored by them.
    """

    index: int
    prompt: str
    target: str
    rephrase: str
    image: str
    image_rephrase: str
    text_locality: str
    image_locality: str
    image_locality_prompt: str
    before: str | None = None
    hops: tuple[Hop, ...] = ()
    text_locality_answer: str | None = None
    image_locality_answer: str | None = None

    @property
    def images(self) -> tuple[tuple[str, str], ...]:
        """Every picture of the record, by the key that names it."""
        return (
            ("image", self.image),
            ("image_rephrase", self.image_rephrase),
            ("m_loc", self.image_locality),
        )

    @property
    def entity(self) -> str:
        """The folder of the edited picture; in VLKEB one folder is one entity."""
        return PurePosixPath(self.image).parts[0]


class Fields:
    """Typed access to one raw record; raises `BadRecord` naming the field."""

    def __init__(self, raw: object, *, within: str = "") -> None:
        if not isinstance(raw, Mapping):
            raise BadRecord(f"{within or 'the record'} is {_kind(raw)}; expected an object")
        self._raw: Mapping[str, Any] = raw
        self._within = within

    def has(self, name: str) -> bool:
        """Whether the field is there with a value."""
        return self._raw.get(name) is not None

    def text(self, name: str) -> str:
        """A text that is not blank, trimmed."""
        text = self.any_text(name)
        if not text:
            raise BadRecord(f"field {self._named(name)} is blank; expected text")
        return text

    def any_text(self, name: str) -> str:
        """A text, trimmed, possibly empty."""
        if name not in self._raw:
            raise BadRecord(f"field {self._named(name)} is missing")
        value = self._raw[name]
        if not isinstance(value, str):
            raise BadRecord(f"field {self._named(name)} is {_kind(value)}; expected text")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BadRecord(f"field {self._named(name)} holds half a character (a lone surrogate)")
        return value.strip()

    def optional_text(self, name: str) -> str | None:
        """A text, trimmed, of a field that may be absent, blank or no text: then None."""
        value = self._raw.get(name)
        return self.any_text(name) or None if isinstance(value, str) else None

    def picture(self, name: str) -> str:
        """A relative path that stays below the image folder."""
        text = self.text(name)
        path = PurePosixPath(text)
        if (
            not path.name
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in text
            or "\0" in text
        ):
            raise BadRecord(
                f"field {self._named(name)} is {text!r}; expected a path below the image folder"
            )
        return path.as_posix()

    def flag(self, name: str) -> bool:
        """A boolean."""
        if name not in self._raw:
            raise BadRecord(f"field {self._named(name)} is missing")
        value = self._raw[name]
        if not isinstance(value, bool):
            raise BadRecord(f"field {self._named(name)} is {_kind(value)}; expected true or false")
        return value

    def items(self, name: str) -> Sequence[object]:
        """A list."""
        value = self._raw[name]
        if not isinstance(value, list):
            raise BadRecord(f"field {self._named(name)} is {_kind(value)}; expected a list")
        return value

    def within(self, name: str) -> Fields:
        """A nested object."""
        if name not in self._raw:
            raise BadRecord(f"field {self._named(name)} is missing")
        return Fields(self._raw[name], within=self._named(name))

    def _named(self, name: str) -> str:
        return f"{self._within}.{name}" if self._within else name


def read_list(file: Path) -> list[object]:
    """The file's JSON list. Raises `DatasetError` naming the file and the place."""
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, list):
        raise DatasetError(f"{file} holds {_kind(found)}; expected a list of records")
    if not found:
        raise DatasetError(f"{file} holds no records")
    return found


class Faults:
    """What is wrong in one file, record by record."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines: list[str] = []

    def add(self, index: int, fault: BadRecord) -> None:
        """Note one record's fault."""
        self._lines.append(f"{self._file}, record {index}: {fault}")

    def raise_any(self, hint: str) -> None:
        """Raise `DatasetError` with the first faults and their number, if there are any."""
        if self._lines:
            raise DatasetError("\n".join(_shortened(self._lines)), hint=hint)


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"... and {len(lines) - _SHOWN} more records with faults"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
