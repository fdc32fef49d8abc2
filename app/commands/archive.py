"""An archive of edits: one zip with a line of JSON for each edit, and each picture once.

    errata.json         format, version, when and of what server, how many edits
    edits.jsonl         an edit on each line, oldest first; `image` names its picture
    pictures/HEX.png    pixels as the server keeps them; HEX is the digest of the pixels

Writing and reading take one picture at a time. A file that cannot be written to its end is not
left behind, and nothing of an archive is believed before it is checked.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errata import Edit

FORMAT = "errata-edits"
VERSION = 1

MOST_LINE = 1024 * 1024
MOST_PICTURE = 16 * 1024 * 1024
MOST_MANIFEST = 64 * 1024

_DAMAGE = (OSError, EOFError, zipfile.BadZipFile, zlib.error)
_PICTURE = re.compile(r"pictures/[0-9a-f]{64}\.png")
_RECORDED = (
    "id", "version", "status", "editor", "prompt", "target", "rephrases", "not_for", "supersedes",
    "note", "tags", "image_digest", "created_at", "created_by", "before", "after", "verified",
)  # fmt: skip


class BadArchive(Exception):
    """The file is no archive, or a damaged one. The message says where."""


class Manifest(BaseModel):
    """What an archive says of itself."""

    model_config = ConfigDict(frozen=True)

    format: str
    version: int
    exported_at: str
    edits: Annotated[int, Field(ge=0)]
    server: dict[str, Any] = {}


class Entry(BaseModel):
    """One edit of an archive. What else a line holds is for the record."""

    model_config = ConfigDict(frozen=True)

    id: str
    status: str
    editor: str
    prompt: str
    target: str
    rephrases: list[str] = []
    not_for: list[str] = []
    supersedes: list[str] = []
    note: str | None = None
    tags: list[str] = []
    image: Annotated[str, Field(pattern=f"^{_PICTURE.pattern}$")]
    image_digest: str


class ArchiveWriter:
    """Takes edits newest first, as servers list them. The file appears when it is whole."""

    def __init__(self, file: Path) -> None:
        """Raises `OSError`."""
        self._file = file
        self._part = file.with_name(f".{file.name}.{os.getpid()}.part")
        self._zip = zipfile.ZipFile(self._part, "x")
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)
        self._starts = array("Q")
        self._pictures: set[str] = set()

    @property
    def counts(self) -> tuple[int, int]:
        """Edits and pictures so far."""
        return len(self._starts), len(self._pictures)

    def add(self, edit: Edit, fetch: Callable[[], bytes]) -> None:
        """One edit; `fetch` is called if its picture is not there yet."""
        name = f"pictures/{edit.image_digest.removeprefix('sha256:')}.png"
        if name not in self._pictures:
            self._zip.writestr(name, fetch())  # stored: PNG is compressed already
            self._pictures.add(name)
        whole = edit.to_dict()
        line = {field: whole[field] for field in _RECORDED} | {"image": name}
        self._starts.append(self._lines.tell())
        self._lines.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def finish(self, *, exported_at: str, server: dict[str, Any]) -> None:
        """Write lines and manifest, and put the file in its place."""
        with self._zip.open(self._deflated("edits.jsonl"), "w") as written:
            for start in reversed(self._starts):
                self._lines.seek(start)
                written.write(self._lines.readline())
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            exported_at=exported_at,
            edits=len(self._starts),
            server=server,
        )
        self._zip.writestr(self._deflated("errata.json"), manifest.model_dump_json(indent=2))
        self._zip.close()
        with self._part.open("rb") as written:
            os.fsync(written.fileno())
        self._part.replace(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._lines.close()
            self._zip.close()
        finally:  # on a full disk, closing fails too
            self._part.unlink(missing_ok=True)

    @staticmethod
    def _deflated(name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        return info


class ArchiveReader:
    """Raises `BadArchive` from all methods."""

    def __init__(self, file: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except OSError as error:
            raise BadArchive(f"cannot read {file}: {error.strerror or error}") from error
        except zipfile.BadZipFile as error:
            raise BadArchive(f"{file} is no archive of edits: {error}") from error
        self._name = str(file)
        try:
            self.manifest = self._manifest()
        except BadArchive:
            self._zip.close()
            raise

    def entries(self) -> Iterator[Entry]:
        """The edits, oldest first, one line in memory at a time."""
        number = 0
        with self._open("edits.jsonl") as lines:
            while line := self._line(lines, number + 1):
                number += 1
                yield self._entry(number, line)
        if number != self.manifest.edits:
            raise BadArchive(
                f"{self._name} has {number} edits and says that it has {self.manifest.edits}"
            )

    def picture(self, entry: Entry) -> bytes:
        """The PNG of an edit."""
        return self._whole(entry.image, MOST_PICTURE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    def _manifest(self) -> Manifest:
        try:
            manifest = Manifest.model_validate_json(self._whole("errata.json", MOST_MANIFEST))
        except ValidationError as error:
            raise BadArchive(f"{self._name}, errata.json: {_first(error)}") from error
        if manifest.format != FORMAT:
            raise BadArchive(f"{self._name} is no archive of edits, but {manifest.format!r}")
        if manifest.version > VERSION:
            raise BadArchive(
                f"{self._name} was written by a newer release (version {manifest.version}, this "
                f"one reads {VERSION}): upgrade Errata"
            )
        return manifest

    def _entry(self, number: int, line: bytes) -> Entry:
        try:
            return Entry.model_validate_json(line)
        except ValidationError as error:
            raise BadArchive(
                f"{self._name}, edits.jsonl, line {number}: {_first(error)}"
            ) from error

    def _line(self, lines: IO[bytes], number: int) -> bytes:
        try:
            line = lines.readline(MOST_LINE + 1)
        except _DAMAGE as error:
            raise BadArchive(f"{self._name}, edits.jsonl is damaged: {error}") from error
        if len(line) > MOST_LINE:
            raise BadArchive(f"{self._name}, edits.jsonl, line {number} is too long")
        return line

    def _whole(self, name: str, most: int) -> bytes:
        """Never more than `most` bytes, whatever the directory of the zip claims."""
        try:
            with self._open(name) as file:
                data = file.read(most + 1)
        except _DAMAGE as error:
            raise BadArchive(f"{self._name}, {name} is damaged: {error}") from error
        if len(data) > most:
            raise BadArchive(f"{self._name}, {name} is too large")
        return data

    def _open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(name)
        except (KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise BadArchive(f"{self._name}: {name} is missing or cannot be read") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place + ': ' if place else ''}{problem['msg']}"
