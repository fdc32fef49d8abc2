"""Bounds rule out vectors, and never one that reaches the threshold."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from editing_core.index.base import canonical_scores
from editing_core.index.bounds import Bounds
from editing_core.index.exact import ExactIndex
from editing_core.index.product import ProductIndex

DIM, COUNT = 48, 9000
TAU = 0.83
Vectors = NDArray[np.float32]


def unit(vectors: NDArray[np.float64]) -> Vectors:
    made: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made


def stored(kind: str, rng: np.random.Generator) -> Vectors:
    drawn = rng.standard_normal((COUNT, DIM))
    if kind == "alike":
        drawn = drawn * 0.15 + rng.standard_normal(DIM)
    elif kind == "few directions":
        drawn = drawn[:, :5] @ rng.standard_normal((5, DIM))
    elif kind == "the same":
        drawn = np.tile(drawn[:3], (COUNT // 3, 1))
    return unit(drawn)


def planted(query: Vectors, cosine: float, rng: np.random.Generator) -> Vectors:
    """A vector whose cosine with `query` is nearly `cosine`."""
    other = rng.standard_normal(DIM)
    other -= other @ query * query
    other /= np.linalg.norm(other)
    made: Vectors = (cosine * query + (1 - cosine**2) ** 0.5 * other).astype(np.float32)
    return made


@pytest.mark.parametrize("kind", ["anyhow", "alike", "few directions", "the same"])
def test_what_is_at_the_threshold_is_found_among_thousands_to_the_last_bit(kind: str) -> None:
    rng = np.random.default_rng(5)
    vectors = stored(kind, rng)
    queries = unit(rng.standard_normal((20, DIM)))
    for at, query in enumerate(queries):
        for place, distance in enumerate((1e-6, -1e-6, 0.0, 1e-7)):
            vectors[4 * at + place] = planted(query, TAU + distance, rng)
    names = [f"e{i:05}" for i in range(COUNT)]
    index, oracle = ProductIndex(DIM), ExactIndex(DIM)
    index.add(names, vectors)
    oracle.add(names, vectors)
    for query in (*queries, *vectors[100:105], np.zeros(DIM, np.float32)):
        found = oracle.range_search(query, TAU)
        assert index.range_search(query, TAU) == found
        for _, score in found[:3]:
            assert index.range_search(query, score) == oracle.range_search(query, score)


@pytest.mark.parametrize("kind", ["anyhow", "alike", "few directions", "the same"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 37.0])
def test_no_bound_is_below_the_score(kind: str, scale: float) -> None:
    rng = np.random.default_rng(6)
    vectors = stored(kind, rng) * np.float32(scale)
    bounds = Bounds(vectors)
    for query in (*vectors[:3], unit(rng.standard_normal((1, DIM)))[0]):
        scores = canonical_scores(vectors, query)
        for threshold in np.quantile(scores, [0.0, 0.5, 0.9, 0.999, 1.0]):
            reach = set(np.flatnonzero(scores >= threshold).tolist())
            assert reach <= set(bounds.candidates(query, float(threshold)).tolist())


def test_most_are_ruled_out_where_pictures_look_alike_in_a_few_ways() -> None:
    vectors = stored("few directions", np.random.default_rng(7))
    left = Bounds(vectors).candidates(vectors[0], 0.95)
    assert 0 in left
    assert len(left) < COUNT // 4
