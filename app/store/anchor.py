"""The anchor: a small file beside the database that says which store it is, and how far it came.

It is written after each commit, so it is never ahead of the database, and may be behind it by what
was committed just before a crash. A database that it does not lead to is another one, or an older
one: emptied, swapped, cut short, or restored.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from app.errors import StartupError

logger = logging.getLogger(__name__)

_SIZE = 512
"""Bytes, one sector of a disk: overwritten in one go, it is the old line or the new one."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """`version` is the newest one known to be committed, `seal` that of its event, if any."""

    store_id: str
    version: int
    seal: str | None


def anchor_file(database: Path) -> Path:
    """Of a database that is a file."""
    return database.with_name(f"{database.name}.anchor")


def read_anchor(file: Path) -> Anchor | None:
    """None where there is none. Raises `StartupError` where it cannot be read."""
    for _ in range(3):  # it may be written at this moment
        try:
            return Anchor(**json.loads(file.read_text("ascii")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            reason = error
            time.sleep(0.01)
    raise StartupError(
        f"{file} cannot be read ({reason}); it says which database belongs here. If the right one "
        "is there, remove that file and start again"
    )


def write_anchor(file: Path, anchor: Anchor) -> None:
    """Put it there. A commit that happened is not taken back because this fails: then it is
    logged, and the next commit writes it again."""
    line = (json.dumps(asdict(anchor)).ljust(_SIZE - 1) + "\n").encode("ascii")
    try:
        if not file.exists():
            _create(file, line)
            return
        # No sync: the database has been synced before, and an older line is as good.
        with file.open("r+b", buffering=0) as opened:
            opened.write(line)
    except OSError:
        logger.exception("the anchor %s cannot be written", file)


def _create(file: Path, line: bytes) -> None:
    """Whole or not at all, and of its full size: no later line can meet a full disk."""
    new = file.with_name(f"{file.name}.new")
    with new.open("wb") as opened:
        opened.write(line)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)
