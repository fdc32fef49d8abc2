"""The state that a server had when it closed its database, for a start that finds it untouched.

A file beside the database, under a digest of its own. It is believed only where nobody wrote to the
database since: the file is the same one (device, inode), as long, and as old to the nanosecond.
Otherwise, and after every crash, history is read, checked and folded from the first event on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.store.dialects import Dialect, Stamp
from app.store.records import digest_of

logger = logging.getLogger(__name__)

_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`made_for` names the weights that were loaded; `state` is JSON. `keys` float32 `[n, dim]` are
    image keys of the edits that `state` names in this order."""

    made_for: str
    state: Mapping[str, Any]
    keys: NDArray[np.float32]


def write(where: Dialect, checkpoint: Checkpoint) -> None:
    """For a database that was closed. That this fails costs the next start time, and no more."""
    stamp, file = where.stamp(), where.checkpoint
    if stamp is None or file is None:
        return
    state = json.dumps(checkpoint.state, separators=(",", ":")).encode("ascii")
    keys = np.ascontiguousarray(checkpoint.keys, dtype="<f4").tobytes()
    head = {
        "format": _FORMAT,
        "stamp": list(stamp),
        "made_for": checkpoint.made_for,
        "state": len(state),
        "shape": list(checkpoint.keys.shape),
        "digest": digest_of(state + keys),
    }
    line = json.dumps(head).encode("ascii")
    new = file.with_name(f"{file.name}.new")
    try:
        with new.open("wb") as opened:
            opened.write(digest_of(line).encode("ascii") + b"\n" + line + b"\n")
            opened.write(state)
            opened.write(keys)
        new.replace(file)
    except OSError:
        logger.warning("no checkpoint was written beside %s", where.name, exc_info=True)


def read(where: Dialect, stamp: Stamp | None, made_for: str) -> Checkpoint | None:
    """What was written for a database of this stamp and these weights; else None."""
    file = where.checkpoint
    if stamp is None or file is None:
        return None
    try:
        seal, line, body = file.read_bytes().split(b"\n", 2)
        if seal.decode("ascii") != digest_of(line):
            raise ValueError("its first line does not match its digest")
        head = json.loads(line)
        if (head["format"], head["made_for"], head["stamp"]) != (_FORMAT, made_for, list(stamp)):
            return None
        if head["digest"] != digest_of(body):
            raise ValueError("its content does not match its digest")
        state = json.loads(body[: head["state"]])
        keys = np.frombuffer(body, dtype="<f4", offset=head["state"]).reshape(head["shape"])
        return Checkpoint(made_for, state, keys.astype(np.float32, copy=False))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not used: %s", file, error)
        return None
