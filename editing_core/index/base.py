"""The contract of a vector index: every stored vector within a threshold, and no other.

`add` mutates; nothing else does. An index must not be searched while it is added to (some
implementations crash then), so a shared one is filled once and never touched again: whoever wants
to add makes another (`experts/memory.py`). Searching a filled index from several threads is safe.

Range search, not top-k: a missed vector would be an acknowledged edit that silently does not fire.
An implementation that can miss one says so with `exact = False`.

Scores are inner products in one canonical arithmetic (`canonical_scores`), whichever
implementation found the vector: all of them agree on which vectors lie at the threshold, today,
after a restart, and beside other vectors.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray


class VectorIndex(ABC):
    """Vectors float32 `[dim]` under distinct ids."""

    exact: bool

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"a vector has at least one dimension, not {dim}")
        self.dim = dim

    @abstractmethod
    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Store `vectors` `[n, dim]`. Raises `ValueError` on a known id, shape or non-finite value.

        All of them are stored, or none.
        """

    @abstractmethod
    def range_search(self, query: NDArray[np.float32], threshold: float) -> list[tuple[str, float]]:
        """Every id whose inner product with `query` `[dim]` is >= `threshold`, with it.

        Best first; equals in the order of their ids.
        """

    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """All ids, in the order in which they were added."""

    @abstractmethod
    def vectors(self) -> NDArray[np.float32]:
        """All vectors `[n, dim]`, in the order of `ids`. Read them only."""

    def save(self, path: Path) -> None:
        """Write to one file, replacing it. Whatever an index builds is built again by `load`."""
        with path.open("wb") as stream:
            np.savez(stream, ids=np.array(self.ids(), dtype=np.str_), vectors=self.vectors())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `OSError` or `ValueError` on a missing or damaged file."""
        with path.open("rb") as stream:
            try:
                stored = np.load(stream, allow_pickle=False)
                ids, vectors = stored["ids"], stored["vectors"]
            except (zipfile.BadZipFile, KeyError, EOFError, IndexError, TypeError) as error:
                raise ValueError(f"{path} holds no index: {error!r}") from error
        index = cls(vectors.shape[-1])
        index.add([str(name) for name in ids], vectors)
        return index

    def __len__(self) -> int:
        return len(self.ids())


def canonical_scores(
    vectors: NDArray[np.float32], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inner products `[n]` of `vectors` `[n, dim]` with `query` `[dim]`.

    Products of float32 are exact in float64, and a row's sum is taken in an order that depends on
    `dim` alone. A matrix product would round differently with the number of rows.
    """
    products = vectors.astype(np.float64) * query.astype(np.float64)
    scores: NDArray[np.float32] = products.sum(axis=1).astype(np.float32)
    return scores


def rounding(dim: int, largest_norm: float, query: NDArray[np.float32]) -> float:
    """Bound on |float32 inner product - canonical one| of `query` with vectors that are at most
    `largest_norm` long, in whatever order it is summed, with a factor of two to spare."""
    largest = largest_norm * float(np.linalg.norm(query.astype(np.float64)))
    return 2.0 * dim * float(np.finfo(np.float32).eps) * largest + 1e-30


def select(
    ids: Sequence[str], scores: NDArray[np.float32], threshold: float
) -> list[tuple[str, float]]:
    """Pairs with a score >= `threshold`, in the order that `range_search` promises."""
    kept = [
        (name, float(score)) for name, score in zip(ids, scores, strict=True) if score >= threshold
    ]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))


def checked(
    ids: Sequence[str], vectors: NDArray[np.float32], *, dim: int, known: Sequence[str]
) -> NDArray[np.float32]:
    """`vectors` as a contiguous float32 `[n, dim]`, or `ValueError` saying what is wrong."""
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.shape != (len(ids), dim):
        raise ValueError(f"expected vectors [{len(ids)}, {dim}], got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("vectors must be finite")
    if len({*ids, *known}) != len(ids) + len(known):
        raise ValueError("ids must be distinct")
    return array
