"""Ids sort in the order in which they were made."""

from __future__ import annotations

import time

import pytest

from app.ulid import UlidSequence, is_ulid, new_ulid


def test_ids_look_as_the_specification_says() -> None:
    assert is_ulid(new_ulid())
    assert is_ulid("01ARZ3NDEKTSV4RRFFQ69G5FAV")
    for other in ("", "01ARZ3NDEKTSV4RRFFQ69G5FA", "81ARZ3NDEKTSV4RRFFQ69G5FAV", "U" * 26):
        assert not is_ulid(other)


def test_a_sequence_grows_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = UlidSequence()
    ids = [sequence.next() for _ in range(100)]
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    ids += [sequence.next() for _ in range(100)]
    ids += [UlidSequence(after=ids[-1]).next()]

    assert ids == sorted(set(ids))
    assert all(map(is_ulid, ids))
