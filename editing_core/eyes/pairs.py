"""Pairs of pictures, judged: a few at a time, and each pair once while it is remembered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock

import numpy as np
import torch

from editing_core.eyes.judge import Judge, differences
from editing_core.eyes.sketch import Sketch, Sketcher

MOST_JUDGED = 8
"""Different pictures that one question's is laid beside, at most: about a millisecond each."""
_REMEMBERED = 4096
Pair = tuple[bytes, bytes]


class Pairs:
    """Nothing changes but what is remembered; thread-safe."""

    def __init__(self, sketcher: Sketcher, judge: Judge) -> None:
        self._sketcher = sketcher
        self._judge = judge.eval().requires_grad_(False)
        self._judged: OrderedDict[Pair, bool] = OrderedDict()
        self._lock = Lock()

    def same(self, sketch: Sketch, others: Sequence[Sketch]) -> list[bool]:
        """Whether each of the others, the nearest first, is of the same picture as `sketch`.

        One that is equal is, and so is any where either is empty: then keys alone decide. Of more
        than `MOST_JUDGED` different ones the rest count as other pictures. Pairs are remembered.
        """
        if not sketch.size:
            return [True] * len(others)
        own = _digest(sketch)
        names = [(own, _digest(other)) if other.size else None for other in others]
        asked = {
            name: other
            for name, other in zip(names, others, strict=True)
            if name is not None and name[1] != own
        }
        found = self._remembered(dict(list(asked.items())[:MOST_JUDGED]), sketch)
        return [name is None or name[1] == own or found.get(name, False) for name in names]

    @torch.no_grad()
    def _remembered(self, asked: Mapping[Pair, Sketch], sketch: Sketch) -> dict[Pair, bool]:
        with self._lock:
            found = {pair: self._judged[pair] for pair in asked if pair in self._judged}
        fresh = [pair for pair in asked if pair not in found]
        if fresh:
            others = torch.from_numpy(np.stack([asked[pair] for pair in fresh]))
            own = torch.from_numpy(sketch).expand(len(fresh), -1)
            scores = self._judge(*differences(self._sketcher, own, others))
            found |= dict(zip(fresh, (scores > 0.0).tolist(), strict=True))
        with self._lock:
            for pair in asked:
                self._judged[pair] = found[pair]
                self._judged.move_to_end(pair)
            while len(self._judged) > _REMEMBERED:
                self._judged.popitem(last=False)
        return found


def _digest(sketch: Sketch) -> bytes:
    return hashlib.blake2b(sketch.tobytes(), digest_size=16).digest()
