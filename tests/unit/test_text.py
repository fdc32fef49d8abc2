"""Unicode in prompts and targets: the same text however it is written, and soon."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.schemas.edits import EditCreate
from app.schemas.generation import GenerateRequest
from editing_core.identity import MAX_MARKS, is_tangled, nfc, slot_prompt

MARKS = st.characters(categories=["Mn"]) | st.sampled_from("\u0344\u0f73\u0f75\u0f81")
TEXTS = st.lists(st.characters(exclude_categories=["Cs"]) | st.text(MARKS, max_size=80)).map(
    "".join
)


@given(TEXTS)
def test_it_is_what_unicode_says(text: str) -> None:
    assert nfc(text) == unicodedata.normalize("NFC", text)


@given(TEXTS)
def test_a_run_is_counted_as_one_would(text: str) -> None:
    longest = run = 0
    for character in text:
        combines = unicodedata.combining(unicodedata.normalize("NFD", character)[0]) > 0
        run = run + 1 if combines else 0
        longest = max(longest, run)

    assert is_tangled(text) == (longest > MAX_MARKS)


def test_no_mark_lies_beyond_the_table() -> None:
    beyond = range(0x20000, 0x110000)

    assert not any(unicodedata.combining(chr(code)) for code in beyond)


@pytest.mark.parametrize("at", [0, 999_980, 999_999, 1_000_000, 1_000_020])
def test_a_run_is_noticed_wherever_it_stands(at: int) -> None:
    assert is_tangled("\u00e9" * at + "\u0301" * (MAX_MARKS + 1))
    assert not is_tangled("\u00e9" * at + "\u0301" * MAX_MARKS + "a" * 10)


def test_half_a_megabyte_of_marks_is_put_in_order() -> None:
    """With Python's own normalisation alone this test would not end."""
    marks = "\u0301\u0316" * 250_000

    classes = [unicodedata.combining(mark) for mark in slot_prompt("a" + marks)[1:]]

    assert classes == sorted(classes)
    assert len(classes) == len(marks) - 1  # one mark and the letter became one character


HEAP = "a" + "\u0301" * (MAX_MARKS + 1)
EDIT = {"image": "", "prompt": "q", "target": "t"}


@pytest.mark.parametrize(
    "fields",
    [{"prompt": HEAP}, {"target": HEAP}, {"rephrases": [HEAP]}, {"tags": [HEAP]}, {"note": HEAP}],
    ids=lambda fields: next(iter(fields)),
)
def test_marks_heaped_on_one_letter_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="more than 30 combining marks in a row"):
        EditCreate.model_validate(EDIT | fields)


def test_heaped_marks_are_no_question_and_no_stop() -> None:
    for fields in ({"prompt": HEAP}, {"prompt": "q", "stop": [HEAP]}):
        with pytest.raises(ValidationError, match="combining marks"):
            GenerateRequest.model_validate(fields)


def test_a_tag_is_the_same_however_it_is_written() -> None:
    made = EditCreate.model_validate(EDIT | {"tags": ["cafe\u0301", "caf\u00e9"]})

    assert made.tags == ["caf\u00e9"]


def test_an_empty_editor_is_no_editor() -> None:
    with pytest.raises(ValidationError, match="editor"):
        EditCreate.model_validate(EDIT | {"editor": ""})
