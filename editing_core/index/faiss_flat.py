"""FAISS over all vectors: finds the few worth scoring; the canonical score then decides.

FAISS sums in float32 in an order of its own. So it is asked for a little more than the threshold,
by the most its rounding can matter, and every hit is scored again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores, checked, rounding, select


class FaissFlatIndex(VectorIndex):
    """`IndexFlatIP`. The vectors live in FAISS alone; ids beside them."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self._index: Any = faiss.IndexFlatIP(dim)
        self._ids: tuple[str, ...] = ()
        self._largest_norm = 0.0

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        array = checked(ids, vectors, dim=self.dim, known=self._ids)
        self._index.add(array)
        self._ids = (*self._ids, *ids)
        norms = np.linalg.norm(array.astype(np.float64), axis=1)
        self._largest_norm = max(self._largest_norm, float(norms.max(initial=0.0)))

    def range_search(self, query: NDArray[np.float32], threshold: float) -> list[tuple[str, float]]:
        row = np.ascontiguousarray(query, dtype=np.float32).reshape(1, -1)
        if row.shape[1] != self.dim:
            raise ValueError(f"expected a query [{self.dim}], got {list(np.shape(query))}")
        with _one_thread():
            loosened = threshold - rounding(self.dim, self._largest_norm, row[0])
            _, _, found = self._index.range_search(row, loosened)
        positions = np.sort(found)
        nearby = self.vectors()[positions]
        names = [self._ids[position] for position in positions]
        return select(names, canonical_scores(nearby, row[0]), threshold)

    def ids(self) -> tuple[str, ...]:
        return self._ids

    def vectors(self) -> NDArray[np.float32]:
        """A view into FAISS, valid until the next `add`."""
        if not self._ids:
            return np.empty((0, self.dim), dtype=np.float32)
        flat: NDArray[np.float32] = faiss.rev_swig_ptr(
            self._index.get_xb(), len(self._ids) * self.dim
        )
        return flat.reshape(-1, self.dim)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep a single query on one thread, and the model's setting as it was.

    The setting belongs to OpenMP, of which FAISS and torch may share one copy; it is the calling
    thread's own, so others do not see the change.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
