"""A process that decodes pictures for this one, and can be killed when a picture takes too long.

What a hostile file does to a decoder ends with the process: endless work, memory, a crash. The next
picture gets a new one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from io import BufferedReader, BufferedWriter
from pathlib import Path

import numpy as np

from app.decode_worker import ERROR, LENGTH, SIZE
from app.decoding import MAX_PIXELS
from app.image_parts import Unreadable
from editing_core.types import ImageArray

_ROOT = Path(__file__).resolve().parents[1]
_PROGRAM = "import sys; sys.path[:0] = sys.argv[2:]; from app.decode_worker import main; main()"
_ENVIRONMENT = {
    # Memory of large pictures goes back to the system as soon as it is freed.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_PATIENCE = 4
"""Seconds that may pass for each second of computing, on a machine that is busy."""

_GAVE_UP = frozenset({-signal.SIGPROF, -signal.SIGKILL, -signal.SIGXCPU})
_CRASHED = frozenset({-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE})


class DecoderFailed(Exception):
    """The process cannot run; it is no picture's fault."""


class DecodeProcess:
    """Started with its first picture. `decode` belongs to one thread at a time, `kill` to any."""

    def __init__(self, *, limit_s: float) -> None:
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, data: bytes) -> ImageArray:
        """The pixels of a picture file, `uint8 [height, width, 3]`, upright.

        Raises `Unreadable` with the reason, and `DecoderFailed`.
        """
        process = self._started()
        # Computing time is limited inside; this is for what does not even compute.
        deadline = threading.Timer(_PATIENCE * self._limit_s, process.kill)
        deadline.start()
        try:
            return _exchange(process, data)
        except (EOFError, BrokenPipeError) as error:
            raise self._obituary(process) from error
        finally:
            deadline.cancel()

    def kill(self) -> None:
        """End it, whatever it does. The next picture starts another one."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End it, and forget it. Not while another thread decodes."""
        if (process := self._process) is not None:
            self._process = None
            process.kill()
            process.wait()
            _pipes(process)[1].close()
            with contextlib.suppress(BrokenPipeError):  # what it never read goes with it
                _pipes(process)[0].close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        paths = (str(_ROOT), *(path for path in sys.path if path))
        # Nothing of the environment may decide which code decodes: no site, no PYTHONPATH.
        command = [sys.executable, "-IS", "-c", _PROGRAM, str(self._limit_s), *paths]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C is for the server, which ends it in its turn
        )
        return self._process

    def _obituary(self, process: subprocess.Popen[bytes]) -> Exception:
        status = process.wait()
        if status in _GAVE_UP:
            return Unreadable(f"takes longer than {self._limit_s:g} seconds to decode")
        if status in _CRASHED:
            return Unreadable("is damaged")
        return DecoderFailed(f"the process that decodes pictures ended with {status}")


def _exchange(process: subprocess.Popen[bytes], data: bytes) -> ImageArray:
    target, source = _pipes(process)
    target.write(LENGTH.pack(len(data)))
    target.write(data)
    target.flush()
    if _read(source, 1) == ERROR:
        (length,) = LENGTH.unpack(_read(source, LENGTH.size))
        raise Unreadable(_read(source, length).decode())
    height, width = SIZE.unpack(_read(source, SIZE.size))
    if height * width > MAX_PIXELS:
        raise EOFError("no picture is that large")
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    buffer = pixels.data.cast("B")
    if source.readinto(buffer) != len(buffer):
        raise EOFError("it ended between two pixels")
    return pixels


def _read(source: BufferedReader, length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise EOFError("it ended between two answers")
    return data


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BufferedWriter, BufferedReader]:
    assert isinstance(process.stdin, BufferedWriter)
    assert isinstance(process.stdout, BufferedReader)
    return process.stdin, process.stdout
