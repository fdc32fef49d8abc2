"""Which vectors can reach a threshold at all? Upper bounds of inner products, few numbers each.

Vectors are projected onto the main directions of a sample of them. What is left of two vectors adds
at most the product of its lengths (Cauchy and Schwarz), so with `P` the projection

    q . x  <=  Pq . Px + |q - Pq| |x - Px|

holds for every vector, whatever the directions are: they only decide how much is ruled out. The
first few directions are looked at for all vectors, the others for those that are left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_FIRST, _SECOND = 15, 32
_SAMPLE = 4096
_OFF = 1e-3
"""More than sums of thousands of products in float32 can be off, in parts of the lengths."""

Vectors = NDArray[np.float32]


class Bounds:
    """Of `vectors` `[n, dim]` that do not change. 256 bytes a vector."""

    def __init__(self, vectors: Vectors) -> None:
        step = max(1, len(vectors) // _SAMPLE)
        sample = vectors[::step].astype(np.float64)
        _, directions = np.linalg.eigh(sample.T @ sample)
        basis = directions[:, ::-1].T[: _FIRST + _SECOND].astype(np.float32)
        norms = np.einsum("nd,nd->n", vectors, vectors)
        projected = vectors @ basis.T
        self._basis = basis
        self._slack = _OFF * float(norms.max(initial=0.0)) ** 0.5
        self._first = np.ascontiguousarray(_with_rest(projected[:, :_FIRST], norms).T)
        self._both = _with_rest(projected, norms)

    def candidates(self, query: Vectors, threshold: float) -> NDArray[np.intp]:
        """Positions of all vectors whose inner product with `query` is >= `threshold`, and of some
        others, in order."""
        norm = np.einsum("d,d->", query, query)
        threshold -= self._slack * float(norm) ** 0.5
        projected = (self._basis @ query)[None]
        first = _with_rest(projected[:, :_FIRST], norm[None])[0]
        both = _with_rest(projected, norm[None])[0]
        left = np.flatnonzero(first @ self._first >= threshold)
        if len(left) > len(self._both) // 8:  # in order they are read sooner than picked out
            bound = self._both @ both
            return np.flatnonzero(bound >= threshold)
        kept: NDArray[np.intp] = left[self._both[left] @ both >= threshold]
        return kept


def _with_rest(projected: Vectors, norms: NDArray[np.float32]) -> Vectors:
    """Projections `[n, k]` with the length of what is left, as one more number: never less than it
    is, for a sum of squares in float32 may be off by `_OFF` of its size."""
    rest = norms - np.einsum("nd,nd->n", projected, projected)
    rest = np.maximum(rest, 0.0) + _OFF * norms
    return np.concatenate([projected, np.sqrt(rest, dtype=np.float32)[:, None]], axis=1)
