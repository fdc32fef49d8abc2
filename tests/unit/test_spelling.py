"""Typing errors are mended, and what is none stays."""

from __future__ import annotations

import pytest

from editing_core.questions.spelling import Spelling

VOCABULARY = {
    w: i for i, w in enumerate(["what", "capital", "the", "brand", "band", "price", "flag"])
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("waht", "what"),
        ("cpaital", "capital"),
        ("capittal", "capital"),
        ("capitl", "capital"),
        ("capitel", "capital"),
        ("pricw", "price"),
    ],
)
def test_one_slip_is_mended(typed: str, meant: str) -> None:
    assert Spelling(VOCABULARY)(typed) == meant


@pytest.mark.parametrize("word", ["flags", "pricing", "priced", "xylophone", "zq", "teh", "ΣΩ"])
def test_what_is_no_slip_of_a_known_word_stays(word: str) -> None:
    assert Spelling(VOCABULARY)(word) == word.lower()


def test_of_two_words_one_slip_away_the_commoner_is_meant() -> None:
    assert Spelling(VOCABULARY)("brnad bannd") == "brand band"


def test_everything_between_words_is_kept() -> None:
    assert Spelling(VOCABULARY)("Waht, the PRICE?! (№ 4)") == "what, the price?! (№ 4)"
