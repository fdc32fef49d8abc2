from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from editing_core.experts.memory import Snapshot
from tests.support.edits import entry, unit_vector

DIM = 8
QUERY = unit_vector(99, DIM)


def test_an_empty_snapshot_is_version_0_and_finds_nothing() -> None:
    snapshot = Snapshot.empty(DIM)
    assert (snapshot.version, len(snapshot), dict(snapshot.entries)) == (0, 0, {})
    assert snapshot.image_candidates(QUERY, -1.0) == []


def test_evolving_leaves_the_earlier_snapshot_as_it_was() -> None:
    first = Snapshot.empty(DIM).evolve(1, activate=[entry("a", unit_vector(0))])
    second = first.evolve(2, activate=[entry("b", unit_vector(1))], deactivate=["a"])
    assert list(first.entries) == ["a"]
    assert list(second.entries) == ["b"]
    assert [name for name, _ in first.image_candidates(QUERY, -1.0)] == ["a"]
    assert [name for name, _ in second.image_candidates(QUERY, -1.0)] == ["b"]


def test_entries_come_in_the_order_in_which_they_became_active() -> None:
    snapshot = Snapshot.empty(DIM)
    for version, name in enumerate("cab", start=1):
        snapshot = snapshot.evolve(version, activate=[entry(name, unit_vector(version))])
    assert list(snapshot.entries) == ["c", "a", "b"]


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot = Snapshot.empty(DIM).evolve(1, activate=[entry("a", unit_vector(0))])
    with pytest.raises(TypeError):
        snapshot.entries["b"] = snapshot.entries["a"]  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        snapshot.entries["a"].prompt = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        snapshot.version = 7  # type: ignore[misc]


def test_a_reinstated_edit_is_found_once() -> None:
    made = entry("a", QUERY)
    snapshot = Snapshot.empty(DIM).evolve(1, activate=[made, entry("b", unit_vector(1))])
    snapshot = snapshot.evolve(2, deactivate=["a"]).evolve(3, activate=[made])
    assert snapshot.image_candidates(QUERY, 0.99) == [("a", 1.0)]


def test_an_edit_made_anew_is_found_by_its_new_key_only() -> None:
    other = -QUERY
    snapshot = Snapshot.empty(DIM).evolve(
        1, activate=[entry("a", other), entry("b", unit_vector(1)), entry("c", unit_vector(2))]
    )
    snapshot = snapshot.evolve(2, activate=[entry("a", QUERY)], deactivate=["a"])
    assert [name for name, _ in snapshot.image_candidates(other, 0.99)] == []
    assert [name for name, _ in snapshot.image_candidates(QUERY, 0.99)] == ["a"]


def test_edits_one_at_a_time_lie_in_few_segments() -> None:
    snapshot = Snapshot.empty(DIM)
    for i in range(100):
        snapshot = snapshot.evolve(i + 1, activate=[entry(f"e{i:03}", unit_vector(i))])
        assert snapshot.num_segments <= int(np.log2(i + 1)) + 1
    assert len(snapshot.image_candidates(QUERY, -1.0)) == 100


def test_masked_edits_are_compacted_away() -> None:
    many = [entry(f"e{i}", unit_vector(i)) for i in range(9)]
    snapshot = Snapshot.empty(DIM).evolve(1, activate=many)
    for version, made in enumerate(many, start=2):
        snapshot = snapshot.evolve(version, deactivate=[made.edit_id])
        found = {name for name, _ in snapshot.image_candidates(QUERY, -1.0)}
        assert found == set(snapshot.entries)
    assert snapshot.num_segments == 0


@pytest.mark.parametrize(
    ("version", "activate", "deactivate", "complaint"),
    [
        (1, [], [], "does not follow"),
        (2, ["a"], [], "already active"),
        (2, [], ["b"], "not active"),
        (2, ["b", "b"], [], "already active"),
        (2, [], ["a", "a"], "not active"),
    ],
)
def test_impossible_changes_are_refused(
    version: int, activate: list[str], deactivate: list[str], complaint: str
) -> None:
    snapshot = Snapshot.empty(DIM).evolve(1, activate=[entry("a", unit_vector(0))])
    with pytest.raises(ValueError, match=complaint):
        snapshot.evolve(
            version,
            activate=[entry(name, unit_vector(5)) for name in activate],
            deactivate=deactivate,
        )


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="vectors"):
        Snapshot.empty(DIM).evolve(1, activate=[entry("a", unit_vector(0, DIM + 1))])
