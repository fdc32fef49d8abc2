"""One matrix product over all vectors finds the few worth scoring; the canonical score decides.

Vectors stay where they are: an array that is handed over is searched in place, not copied. A
product sums in float32 in an order of its own, so it is compared with a little less than the
threshold, by the most that its rounding can matter, and every hit is scored again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores, checked, rounding, select


class ProductIndex(VectorIndex):
    """Blocks of vectors, each as it was added. Whoever adds one must not change it any more."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._blocks: tuple[NDArray[np.float32], ...] = ()
        self._ids: tuple[str, ...] = ()
        self._largest_norm = 0.0

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        array = checked(ids, vectors, dim=self.dim, known=self._ids)
        self._blocks = (*self._blocks, array)
        self._ids = (*self._ids, *ids)
        # In float32: its rounding is far below the factor of two that `rounding` has to spare.
        norms = np.einsum("nd,nd->n", array, array)
        self._largest_norm = max(self._largest_norm, float(norms.max(initial=0.0)) ** 0.5)

    def range_search(self, query: NDArray[np.float32], threshold: float) -> list[tuple[str, float]]:
        row = np.ascontiguousarray(query, dtype=np.float32)
        if row.shape != (self.dim,):
            raise ValueError(f"expected a query [{self.dim}], got {list(np.shape(query))}")
        loosened = threshold - rounding(self.dim, self._largest_norm, row)
        found: list[tuple[str, float]] = []
        start = 0
        for block in self._blocks:
            positions = np.flatnonzero(block @ row >= loosened)
            names = [self._ids[start + position] for position in positions.tolist()]
            found += select(names, canonical_scores(block[positions], row), threshold)
            start += len(block)
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def ids(self) -> tuple[str, ...]:
        return self._ids

    def vectors(self) -> NDArray[np.float32]:
        if len(self._blocks) == 1:
            return self._blocks[0]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *self._blocks])
