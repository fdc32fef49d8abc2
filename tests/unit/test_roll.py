"""Pages of edits by status, without looking at edits one by one."""

from __future__ import annotations

import pytest

from app.store.ledger import EditStatus
from app.store.roll import Roll

EDITS: list[tuple[str, EditStatus]] = [
    ("c", "active"),
    ("a", "active"),
    ("b", "rolled_back"),
    ("d", "stale"),
    ("e", "active"),
]


def test_pages_are_newest_first_whatever_order_edits_came_in() -> None:
    roll = Roll(EDITS)
    assert roll.newest(limit=3) == ["e", "d", "c"]
    assert roll.newest(below="c", limit=3) == ["b", "a"]
    assert roll.newest(below="c5", limit=1) == ["c"]
    assert roll.newest(below="a", limit=3) == []


def test_a_page_of_one_status_goes_on_where_the_last_one_ended() -> None:
    roll = Roll(EDITS)
    assert roll.newest(status="active", limit=2) == ["e", "c"]
    assert roll.newest(status="active", below="c", limit=2) == ["a"]
    assert roll.newest(status="quarantined", limit=2) == []
    assert (roll.count("active"), roll.count("stale")) == (3, 1)


def test_a_change_of_status_and_an_edit_that_comes_late_take_their_places() -> None:
    roll = Roll(EDITS)
    roll.put("c", "superseded")
    roll.put("f", "active")
    roll.put("bb", "quarantined")
    assert roll.newest(limit=10) == ["f", "e", "d", "c", "bb", "b", "a"]
    assert roll.newest(status="active", limit=10) == ["f", "e", "a"]
    assert roll.status("bb") == "quarantined"
    assert "bb" in roll
    assert "ba" not in roll
    with pytest.raises(KeyError):
        roll.status("ba")
