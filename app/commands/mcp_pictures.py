"""Pictures that an agent names: base64, or files inside folders that a person has allowed.

An agent may be talked into naming any path, so links are followed before a path is judged, and
nothing is read of a file that is not inside.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errata.errors import ErrataError
from app.errata.pictures import encoded

MOST_CHARACTERS = 16 * 1024 * 1024


class PictureRefused(ErrataError):
    """With the fields of an error: `code` says which rule, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Allowed:
    """Folders whose files may be read, links resolved."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Allowed:
        """Raises `ValueError` for one that is no folder."""
        for folder in folders:
            if not folder.expanduser().is_dir():
                raise ValueError(f"--pictures: {folder} is no folder")
        return cls(tuple(folder.expanduser().resolve() for folder in folders))

    def picture(self, path: str | None, data: str | None) -> str:
        """The picture as a request holds it. Raises `PictureRefused`, and `BadPicture`."""
        if (path is None) == (data is None):
            raise PictureRefused(
                "picture_missing",
                "A picture is wanted, in one of two ways.",
                "Give picture_path or picture_base64.",
            )
        return self._data(data) if path is None else self._file(path)

    def _file(self, path: str) -> str:
        try:
            file = Path(path).expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            file = None
        if file is None or not any(file.is_relative_to(folder) for folder in self.folders):
            known = ", ".join(map(str, self.folders))
            raise PictureRefused(
                "path_not_allowed",
                f"{path[:200]} is no file that may be read.",
                f"Pictures are read from: {known}. Or send picture_base64."
                if known
                else "No folder is allowed (errata mcp --pictures FOLDER). Send picture_base64.",
            )
        return f"data:image/png;base64,{encoded(file)}"  # what it is, its content says

    def _data(self, data: str | None) -> str:
        text = data or ""
        if text.startswith("data:"):
            return text
        try:
            if len(text) > MOST_CHARACTERS or not base64.b64decode(text, validate=True):
                raise ValueError
        except (binascii.Error, ValueError) as error:
            raise PictureRefused(
                "image_base64_invalid",
                "picture_base64 is no base64 of a picture of at most 10 MiB.",
                "Send the bytes of a PNG, JPEG, WebP or GIF, or a data URI.",
            ) from error
        return f"data:image/png;base64,{text}"
