"""One server per data directory. The lock dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.errors import StartupError


class InstanceLock:
    """Held from construction to `release`. Raises `StartupError` naming who holds it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "server.lock"
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = self._path.open("a+", encoding="ascii")
        except OSError as error:
            raise StartupError(f"cannot use the data directory {data_dir}: {error}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise StartupError(
                f"the data directory {data_dir} is in use by another server (process {holder}); "
                "stop that one, or give this one another --data-dir"
            ) from error
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
