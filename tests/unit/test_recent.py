"""What is kept of late: the newest, within a size."""

from __future__ import annotations

from editing_core.recent import Recent


def test_what_was_not_wanted_for_longest_goes_first() -> None:
    recent: Recent[str, int] = Recent(3)
    for number, name in enumerate("abc"):
        recent.put(name, number)
    assert recent.get("a") == 0
    recent.put("d", 3)
    assert [recent.get(name) for name in "abcd"] == [0, None, 2, 3]


def test_sizes_add_up_and_what_is_too_large_is_not_kept() -> None:
    recent: Recent[str, str] = Recent(10)
    recent.put("a", "first", 6)
    recent.put("a", "second", 4)
    recent.put("b", "other", 6)
    assert (recent.size, len(recent)) == (10, 2)
    recent.put("a", "too large", 11)
    assert recent.get("a") is None
    assert recent.size == 6
    recent.clear()
    assert (recent.size, len(recent), recent.get("b")) == (0, 0, None)
