"""The oracle: every score computed, nothing clever. Other indexes are tested against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores, checked, select


class ExactIndex(VectorIndex):
    """Vectors in one array. Right at any size, fast enough for some thousands."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._ids: tuple[str, ...] = ()
        self._vectors = np.empty((0, dim), dtype=np.float32)

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        array = checked(ids, vectors, dim=self.dim, known=self._ids)
        self._vectors = np.concatenate([self._vectors, array])
        self._ids = (*self._ids, *ids)

    def range_search(self, query: NDArray[np.float32], threshold: float) -> list[tuple[str, float]]:
        return select(self._ids, canonical_scores(self._vectors, query), threshold)

    def ids(self) -> tuple[str, ...]:
        return self._ids

    def save(self, path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, ids=np.array(self._ids, dtype=np.str_), vectors=self._vectors)

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as stored:
            index = cls(stored["vectors"].shape[1])
            index.add([str(name) for name in stored["ids"]], stored["vectors"])
        return index
