"""The newest answers are kept, as many as fit."""

from __future__ import annotations

from app.feedback.answers import KeptAnswer, RecentAnswers


def kept(number: int, size: int = 1000) -> KeptAnswer:
    return KeptAnswer(str(number), "", "x" * size, "", 0, ())


def test_the_oldest_go_first() -> None:
    answers = RecentAnswers(3 * kept(0).size)
    for number in range(5):
        answers.remember(kept(number))
    assert [answers.get(str(n)) is not None for n in range(5)] == [False, False, True, True, True]


def test_one_that_is_larger_than_all_room_drives_nothing_out() -> None:
    answers = RecentAnswers(3 * kept(0).size)
    answers.remember(kept(0))
    answers.remember(kept(1, size=100_000))
    assert answers.get("0") is not None
    assert answers.get("1") is None
