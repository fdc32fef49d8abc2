"""How values travel between the server and its engine: frames over an inherited pair of sockets.

A frame is a pickle and, after it, the large arrays that it names, which are neither copied into it
nor out of it. Unpickling runs what it is told to run; that is safe here alone, because the socket
has no name and no address: who can write to it is a process that this server started itself.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.experts.memory import Snapshot

Frame: TypeAlias = "Sequence[bytes | bytearray | memoryview]"
"""A pickle, then its large arrays in order."""

_HEAD = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_LARGE = 64 * 1024
"""Bytes from which an array travels beside the pickle."""


class Wire:
    """One end. One thread at a time sends, and one receives."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._source = end.makefile("rb", buffering=1024 * 1024)

    def send(self, frame: Frame) -> None:
        """Blocks while the other end does not read. Raises `OSError` where there is none."""
        lengths = b"".join(_LENGTH.pack(len(part)) for part in frame)
        self._end.sendall(_HEAD.pack(len(frame)) + lengths + bytes(frame[0]))
        for part in frame[1:]:
            self._end.sendall(part)

    def receive(self) -> Frame:
        """Blocks. Raises `EOFError` or `OSError` once there is no other end."""
        (parts,) = _HEAD.unpack(self._read(_HEAD.size))
        lengths = [_LENGTH.unpack(self._read(_LENGTH.size))[0] for _ in range(parts)]
        return [self._read(length) for length in lengths]

    def close(self) -> None:
        """Wakes whoever sends or receives. Safe to call twice."""
        try:
            self._end.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is closed already, here or there
            return

    def release(self) -> None:
        """Give the file descriptor back, once nobody uses it."""
        self._source.close()
        self._end.close()

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            count = self._source.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the other end is closed")
            view = view[count:]
        return data


def pack(value: object, number_of: Callable[[Snapshot], int]) -> Frame:
    """Snapshots are left out of it, and named by `number_of`."""
    head, large = io.BytesIO(), list[memoryview]()
    _Pickler(head, number_of, large).dump(value)
    return [head.getbuffer(), *large]


def unpack(frame: Frame, snapshot_of: Callable[[int], Snapshot]) -> Any:
    """What `pack` was given."""
    head, *large = frame
    return _Unpickler(io.BytesIO(head), snapshot_of, large).load()


class _Pickler(pickle.Pickler):
    def __init__(
        self, file: io.BytesIO, number_of: Callable[[Snapshot], int], large: list[memoryview]
    ) -> None:
        def goes_in(buffer: pickle.PickleBuffer) -> bool:
            data = buffer.raw()
            if len(data) < _LARGE:
                return True
            large.append(data)
            return False

        super().__init__(file, protocol=5, buffer_callback=goes_in)
        self._number_of = number_of

    def persistent_id(self, value: object) -> int | None:
        return self._number_of(value) if isinstance(value, Snapshot) else None

    def reducer_override(self, value: object) -> Any:
        # Tensors pickle themselves as files would hold them, which takes fifty times as long.
        if type(value) is Tensor and value.device.type == "cpu" and not value.requires_grad:
            array = _array(value)
            if array is not None:
                return torch.from_numpy, (array,)
        return NotImplemented


def _array(value: Tensor) -> NDArray[Any] | None:
    """None for the few types that numpy does not have."""
    try:
        return np.ascontiguousarray(value.numpy())
    except TypeError:
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, file: io.BytesIO, snapshot_of: Callable[[int], Snapshot], large: Sequence[Any]
    ) -> None:
        super().__init__(file, buffers=large)
        self._snapshot_of = snapshot_of

    def persistent_load(self, number: int) -> Snapshot:
        return self._snapshot_of(number)
