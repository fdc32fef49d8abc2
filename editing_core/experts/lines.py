"""Buffers with a line for each row, which grow and are never rebuilt when rows come and go.

A line that is shorter than the widest is filled up with what takes no part. Room stays reserved, so
that a row enters by one copy of its own parts and leaves by moving the last line into its place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Lines:
    """Named buffers `[lines, width, ...]`; `fill` says what each is filled up with."""

    def __init__(self, fill: Mapping[str, float]) -> None:
        self._fill = dict(fill)
        self._buffers: dict[str, Tensor] = {}
        self._widths: list[int] = []

    def __len__(self) -> int:
        return len(self._widths)

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """A new last line; every part `[width, ...]`, of the same width, at least 1."""
        line, width = len(self), len(next(iter(parts.values())))
        for name, part in parts.items():
            buffer = self._with_room(name, part, line + 1)
            buffer[line, :width] = part
            buffer[line, width:] = self._fill[name]
        self._widths.append(width)

    def remove(self, line: int) -> None:
        """The last line takes this one's place."""
        last = len(self) - 1
        if line != last:
            for buffer in self._buffers.values():
                buffer[line] = buffer[last]
            self._widths[line] = self._widths[last]
        del self._widths[last]

    def views(self) -> dict[str, Tensor]:
        """Every buffer as far as it is used, without a copy. They hold until the next change."""
        count, width = len(self), max(self._widths)
        return {name: buffer[:count, :width] for name, buffer in self._buffers.items()}

    def _with_room(self, name: str, part: Tensor, lines: int) -> Tensor:
        """The buffer, twice as large where it was too small."""
        old = self._buffers.get(name)
        kept, widest = (0, 0) if old is None else (old.shape[0], old.shape[1])
        if old is not None and lines <= kept and len(part) <= widest:
            return old
        count = kept if lines <= kept else max(lines, 2 * kept)
        width = widest if len(part) <= widest else max(len(part), 2 * widest)
        new = torch.full(
            (count, width, *part.shape[1:]),
            self._fill[name],
            dtype=part.dtype,
            device=part.device,
        )
        if old is not None:
            new[:kept, :widest] = old
        self._buffers[name] = new
        return new
