"""Every index, against the contract in `index/base.py` and against the exact one."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from editing_core.index.base import VectorIndex, canonical_scores
from editing_core.index.exact import ExactIndex
from editing_core.registry import INDEXES

DIM = 16


@pytest.fixture(params=sorted(INDEXES))
def index_class(request: pytest.FixtureRequest) -> type[VectorIndex]:
    found: type[VectorIndex] = INDEXES.resolve(request.param)
    return found


def vectors(count: int, *, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((count, dim))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn.astype(np.float32)


def names(count: int) -> list[str]:
    return [f"e{i:04}" for i in range(count)]


def filled(index_class: type[VectorIndex], stored: NDArray[np.float32]) -> VectorIndex:
    index = index_class(stored.shape[1])
    index.add(names(len(stored)), stored)
    return index


def test_an_empty_index_finds_nothing(index_class: type[VectorIndex]) -> None:
    index = index_class(DIM)
    assert index.range_search(vectors(1)[0], -1.0) == []
    assert index.ids() == ()
    assert len(index) == 0


def test_a_vector_is_found_at_its_own_score_and_not_above(index_class: type[VectorIndex]) -> None:
    stored, query = vectors(50), vectors(1, seed=1)[0]
    index = filled(index_class, stored)
    scores = canonical_scores(stored, query)
    for name, score in zip(names(50), scores, strict=True):
        at = float(score)
        assert (name, at) in index.range_search(query, at)
        above = float(np.nextafter(score, np.float32(2)))
        assert name not in dict(index.range_search(query, above))


def test_hits_come_best_first_and_equals_by_id(index_class: type[VectorIndex]) -> None:
    stored = np.repeat(vectors(3), 2, axis=0)
    index = index_class(DIM)
    index.add(["f", "e", "d", "c", "b", "a"], stored)
    found = index.range_search(stored[0], -2.0)
    assert len(found) == 6
    assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
    assert [name for name, _ in found[:2]] == ["e", "f"]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    copies=st.integers(1, 3),
    scale=st.sampled_from([1e-3, 1.0, 37.0]),
    pick=st.integers(0, 59),
)
def test_every_exact_index_agrees_with_the_oracle_to_the_last_bit(
    seed: int, count: int, copies: int, scale: float, pick: int
) -> None:
    stored = np.tile(vectors(count, seed=seed) * np.float32(scale), (copies, 1))
    query = vectors(1, seed=seed + 1)[0]
    oracle = filled(ExactIndex, stored)
    threshold = float(canonical_scores(stored, query)[pick % len(stored)])
    for name in INDEXES:
        index = filled(INDEXES.resolve(name), stored)
        if index.exact:
            assert index.range_search(query, threshold) == oracle.range_search(query, threshold)


def test_a_score_does_not_depend_on_the_neighbours(index_class: type[VectorIndex]) -> None:
    stored, query = vectors(300, dim=192), vectors(1, seed=1, dim=192)[0]
    together = dict(filled(index_class, stored).range_search(query, -2.0))
    for i in (0, 7, 299):
        alone = index_class(192)
        alone.add([names(300)[i]], stored[i : i + 1])
        assert alone.range_search(query, -2.0) == [(names(300)[i], together[names(300)[i]])]


@pytest.mark.parametrize(
    ("ids", "stored"),
    [
        (["a"], vectors(2)),
        (["a", "b"], vectors(2)[:, :3]),
        (["a", "a"], vectors(2)),
        (["a", "known"], vectors(2)),
        (["a"], np.full((1, DIM), np.nan, dtype=np.float32)),
        (["a"], np.full((1, DIM), np.inf, dtype=np.float32)),
    ],
)
def test_a_refused_add_changes_nothing(
    index_class: type[VectorIndex], ids: list[str], stored: NDArray[np.float32]
) -> None:
    index = index_class(DIM)
    index.add(["known"], vectors(1))
    with pytest.raises(ValueError, match=r"ids|vectors"):
        index.add(ids, stored)
    assert index.ids() == ("known",)
    assert len(index.range_search(vectors(1)[0], 0.5)) == 1


def test_what_was_saved_is_loaded(index_class: type[VectorIndex], tmp_path: Path) -> None:
    index, query = filled(index_class, vectors(20)), vectors(1, seed=3)[0]
    index.save(tmp_path / "index")
    loaded = index_class.load(tmp_path / "index")
    assert loaded.ids() == index.ids()
    assert loaded.range_search(query, 0.1) == index.range_search(query, 0.1)
    loaded.add(["more"], vectors(1, seed=9))
    assert len(loaded) == 21
    index_class(DIM).save(tmp_path / "empty")
    assert index_class.load(tmp_path / "empty").ids() == ()


@pytest.mark.parametrize("data", [b"", b"not an index", b"PK\x03\x04 damaged"])
def test_a_damaged_file_is_refused(
    index_class: type[VectorIndex], tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "index").write_bytes(data)
    with pytest.raises((OSError, ValueError)):
        index_class.load(tmp_path / "index")


def test_wrong_sizes_are_refused(index_class: type[VectorIndex]) -> None:
    with pytest.raises(ValueError, match="dimension"):
        index_class(0)
    with pytest.raises(ValueError, match=r"query|broadcast"):
        filled(index_class, vectors(3)).range_search(np.ones(3, dtype=np.float32), 0.0)


def test_many_threads_search_one_index(index_class: type[VectorIndex]) -> None:
    index, queries = filled(index_class, vectors(500)), vectors(8, seed=5)
    expected = [index.range_search(query, 0.3) for query in queries]
    wrong: list[int] = []

    def search(i: int) -> None:
        for _ in range(50):
            if index.range_search(queries[i], 0.3) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=search, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_searching_leaves_the_models_threads_alone(index_class: type[VectorIndex]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        filled(index_class, vectors(10)).range_search(vectors(1)[0], 0.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
