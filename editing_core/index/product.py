"""One matrix product over all vectors finds the few worth scoring; the canonical score decides.

Vectors stay where they are: an array that is handed over is searched in place, not copied. Of many,
most are ruled out by bounds before (`index/bounds.py`), so the product is over the rest. A
product sums in float32 in an order of its own, so it is compared with a little less than the
threshold, by the most that its rounding can matter, and every hit is scored again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores, checked, rounding, select
from editing_core.index.bounds import Bounds

_MANY = 8192
"""Vectors of a block from which on most are ruled out by bounds before the product."""


class ProductIndex(VectorIndex):
    """Blocks of vectors, each as it was added. Whoever adds one must not change it any more."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._blocks: tuple[NDArray[np.float32], ...] = ()
        self._bounds: tuple[Bounds | None, ...] = ()
        self._ids: tuple[str, ...] = ()
        self._largest_norm = 0.0

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        array = checked(ids, vectors, dim=self.dim, known=self._ids)
        self._blocks = (*self._blocks, array)
        bounds = Bounds(array) if len(array) >= _MANY else None
        self._bounds = (*self._bounds, bounds)
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
        for block, bounds in zip(self._blocks, self._bounds, strict=True):
            positions = _candidates(block, bounds, row, loosened)
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


def _candidates(
    block: NDArray[np.float32], bounds: Bounds | None, row: NDArray[np.float32], threshold: float
) -> NDArray[np.intp]:
    """Positions whose product is >= `threshold`."""
    if bounds is None:
        return np.flatnonzero(block @ row >= threshold)
    left = bounds.candidates(row, threshold)
    if len(left) > len(block) // 8:  # in order they are read sooner than picked out
        return np.flatnonzero(block @ row >= threshold)
    kept: NDArray[np.intp] = left[block[left] @ row >= threshold]
    return kept
