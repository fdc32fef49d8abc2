"""The process in which pictures are decoded, one after another, until its input ends.

It reads a frame, `<I` length and the file, and answers with `P`, `<II` height and width and the
pixels row by row, or with `E`, `<I` length and why there are none. It limits its memory, and the
computing time of each picture: what takes longer ends it. Started by `app/decode_process.py`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import struct
import sys
from typing import BinaryIO

from app.decoding import load
from app.image_parts import Unreadable

LENGTH = struct.Struct("<I")
SIZE = struct.Struct("<II")
PIXELS, ERROR = b"P", b"E"

_MEMORY = 2 * 1024**3
"""Address space. A picture at the limit takes some hundreds of megabytes of it."""


_NICE = 5
"""Decoding gives way to answering, where there are too few processors for both."""


def main() -> None:
    limit_s = float(sys.argv[1])
    os.nice(_NICE)
    # Where there is no such limit (macOS), the bound on pixels is the one that holds.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while head := source.read(LENGTH.size):
        signal.setitimer(signal.ITIMER_PROF, limit_s)  # at its end, SIGPROF ends the process
        _answer(source.read(LENGTH.unpack(head)[0]), target)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(data: bytes, target: BinaryIO) -> None:
    try:
        loaded = load(data)
    except Unreadable as error:
        reason = str(error).encode()
        target.write(ERROR + LENGTH.pack(len(reason)) + reason)
    else:
        target.write(PIXELS + SIZE.pack(loaded.height, loaded.width))
        for piece in loaded.pieces():
            target.write(piece.data)
    target.flush()
