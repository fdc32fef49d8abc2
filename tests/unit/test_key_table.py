"""Image keys of all edits, and snapshots of any of them that share these keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.store.key_table import KeyTable
from editing_core.experts.memory import MemoryEntry, Name, Snapshot
from tests.support.edits import entry, unit_vector

DIM = 8
QUERY = unit_vector(99, DIM)


class Shelf:
    """Has any edit, and counts what it was asked for; `unfit` ones it has not."""

    def __init__(self, *unfit: str) -> None:
        self.unfit = unfit
        self.fetched: list[Name] = []

    def fetch(self, names: Sequence[Name]) -> list[MemoryEntry | None]:
        self.fetched += names
        return [None if name[0] in self.unfit else entry(name[0], QUERY) for name in names]


def table(count: int) -> KeyTable:
    made = KeyTable()
    for i in range(count):
        made.put(f"e{i:05}", unit_vector(i, DIM))
    return made


def snapshot(of: KeyTable, ids: Sequence[str], source: Shelf) -> Snapshot:
    return Snapshot.empty(DIM, source=source).of(3, of.parts(ids, lambda _: 2, source))


def test_a_snapshot_of_some_edits_finds_these_and_fetches_what_it_found() -> None:
    source = Shelf()
    some = snapshot(table(5000), ["e00002", "e04999"], source)
    assert len(some) == 2
    assert {name for name, _ in some.image_candidates(QUERY, -1.0)} == {"e00002", "e04999"}
    assert sorted(source.fetched) == [("e00002", 2), ("e04999", 2)]
    assert some.image_candidates(unit_vector(2, DIM), 0.999)[0][0] == "e00002"
    assert "e00003" not in some.entries
    assert some.name("e04999") == ("e04999", 2)


def test_keys_that_come_later_change_no_snapshot() -> None:
    growing = table(10)
    source = Shelf()
    before = snapshot(growing, ["e00001", "e00009"], source)
    growing.put("later", QUERY)
    growing.put("e00001", -QUERY)
    assert [name for name, _ in before.image_candidates(QUERY, 0.99)] == []
    assert [name for name, _ in growing.near(QUERY, 0.99)] == ["later"]
    assert [name for name, _ in growing.near(-QUERY, 0.99)] == ["e00001"]
    assert [name for name, _ in growing.near(unit_vector(1, DIM), 0.999)] == []


def test_what_its_source_finds_unfit_is_no_candidate() -> None:
    some = snapshot(table(3), ["e00000", "e00001"], Shelf("e00001"))
    assert [name for name, _ in some.image_candidates(QUERY, -1.0)] == ["e00000"]
    assert some.entries.get("e00001") is None


def test_edits_evolve_from_named_ones() -> None:
    source = Shelf()
    first = snapshot(table(100), [f"e{i:05}" for i in range(100)], source)
    second = first.evolve(4, activate=[entry("new", QUERY)], deactivate=["e00007"])
    assert (len(first), len(second)) == (100, 100)
    assert {"e00007"} == set(first.entries) - set(second.entries)
    assert source.fetched == []
    third = second.evolve(5, deactivate=[f"e{i:05}" for i in range(100) if i != 7])
    assert list(third.entries) == ["new"]


def test_what_is_taken_over_and_what_came_alone_come_back_together() -> None:
    made = KeyTable()
    made.fill(["a", "b"], np.stack([unit_vector(1, DIM), unit_vector(2, DIM)]))
    made.put("c", QUERY)
    made.drop("a")
    ids, keys = made.dump()
    assert ids == ["b", "c"]
    np.testing.assert_array_equal(keys, [unit_vector(2, DIM), QUERY])
