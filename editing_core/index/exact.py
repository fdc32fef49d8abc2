"""The oracle: every score computed, nothing clever. Other indexes are tested against it."""

from __future__ import annotations

from collections.abc import Sequence

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

    def vectors(self) -> NDArray[np.float32]:
        return self._vectors
