"""FAISS over all vectors: finds the few worth scoring; the canonical score then decides.

FAISS sums in float32 in an order of its own. So it is asked for a little more than the threshold,
by the most its rounding can matter, and every hit is scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores, checked, select


class FaissFlatIndex(VectorIndex):
    """`IndexFlatIP`. The vectors live in FAISS alone; ids beside them."""

    exact = True

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        # One query at a time: more threads than one only take cores from the model.
        faiss.omp_set_num_threads(1)
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
        _, _, found = self._index.range_search(row, threshold - self._rounding(row))
        positions = np.sort(found)
        vectors = self._vectors()[positions]
        names = [self._ids[position] for position in positions]
        return select(names, canonical_scores(vectors, row[0]), threshold)

    def ids(self) -> tuple[str, ...]:
        return self._ids

    def save(self, path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(
                stream,
                ids=np.array(self._ids, dtype=np.str_),
                index=faiss.serialize_index(self._index),
            )

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path, allow_pickle=False) as stored:
            ids = [str(name) for name in stored["ids"]]
            try:
                raw = faiss.deserialize_index(stored["index"])
            except RuntimeError as error:
                raise ValueError(f"{path} holds no index: {error}") from error
        index = cls(int(raw.d))
        # Added anew, not adopted: what was checked once at `add` is checked here too.
        index.add(ids, raw.reconstruct_n(0, int(raw.ntotal)))
        return index

    def _vectors(self) -> NDArray[np.float32]:
        """A view of the vectors inside FAISS, valid until the next `add`."""
        flat: NDArray[np.float32] = faiss.rev_swig_ptr(
            self._index.get_xb(), len(self._ids) * self.dim
        )
        return flat.reshape(-1, self.dim)

    def _rounding(self, row: NDArray[np.float32]) -> float:
        """Bound on |float32 inner product - canonical one|, with a factor of two to spare."""
        largest = self._largest_norm * float(np.linalg.norm(row.astype(np.float64)))
        return 2.0 * self.dim * float(np.finfo(np.float32).eps) * largest + 1e-30
