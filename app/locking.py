"""One server per data directory, and per database. A lock dies with its process, however that ends.

The file of a lock may be removed by hand while it is held: then the database itself notices a
second server (`app/store/owner.py`).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import StartupError


class InstanceLock:
    """Held from construction to `release`. Raises `StartupError` naming who holds it."""

    def __init__(self, file: Path, *, what: str, instead: str) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StartupError(f"cannot use {what}: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 100).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise StartupError(
                f"{what} is in use by another server (process {holder}); "
                f"stop that one, or give this one another {instead}"
            ) from error
        try:
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())
        except OSError as error:
            self.release()
            raise StartupError(f"cannot use {what}: {error} ({file})") from error

    @classmethod
    def of_data_dir(cls, data_dir: Path) -> Self:
        what = f"the data directory {data_dir}"
        return cls(data_dir / "server.lock", what=what, instead="--data-dir")

    @classmethod
    def of_database(cls, file: Path) -> Self:
        lock = file.with_name(f"{file.name}.lock")
        return cls(lock, what=f"the database {file}", instead="--database-url")

    def release(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
