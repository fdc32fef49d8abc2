"""Edits that may be slips of the hand are made, and say so wherever they are shown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.edits.edit import Correction
from app.edits.oddities import warnings_of
from tests.integration.conftest import Edit


def codes(prompt: str = "What is it?", target: str = "blue", *rephrases: str) -> list[str]:
    found = warnings_of(Correction(prompt=prompt, target=target, rephrases=rephrases))
    assert all(warning.message for warning in found)
    return [warning.code for warning in found]


@pytest.mark.parametrize("prompt", ["?", ".", "the", "The ... of", "\U0001f642", "-- a?"])
def test_a_prompt_without_a_word_of_its_own(prompt: str) -> None:
    assert codes(prompt) == ["prompt_says_nothing"]
    assert codes("What is it?", "blue", prompt) == ["prompt_says_nothing"]


@pytest.mark.parametrize("target", ["\u200b", "\u2060\ufeff", "\u200d", "\u2800", "\u3164 \u3164"])
def test_a_target_that_shows_nothing(target: str) -> None:
    (warning,) = warnings_of(Correction(prompt="What?", target=target))
    assert warning.code == "target_hidden_characters"
    assert "shows nothing" in warning.message
    assert f"U+{ord(target[0]):04X}" in warning.message


@pytest.mark.parametrize("target", ["bl\u200bue", "\u202eeulb", "blue\u00ad", "bl\x07ue"])
def test_a_target_with_hidden_characters(target: str) -> None:
    assert codes(target=target) == ["target_hidden_characters"]


@pytest.mark.parametrize(
    "target", ["<|end|>", "<image>", "yes</s>", "<s>", "[INST] no", "<start_of_turn>", "<pad>"]
)
def test_a_target_that_spells_a_special_token(target: str) -> None:
    assert codes(target=target) == ["target_looks_special"]


@pytest.mark.parametrize(
    ("prompt", "target"),
    [
        ("What?", "a < b and c > d"),
        ("Is it blue?", "\U0001f469\u200d\U0001f469\u200d\U0001f467"),
        ("\u661f\u306f\u4f55\u8272\uff1f", "\u0646\u0645\u06cc\u200c\u062f\u0627\u0646\u0645"),
        ("7", "two\nlines"),
        ("Who is this?", "[1] \u2764\ufe0f"),
    ],
)
def test_what_is_usual_is_not_remarked_upon(prompt: str, target: str) -> None:
    assert codes(prompt, target) == []


def test_the_answer_says_so_and_a_usual_one_has_no_such_field(
    client: httpx.Client, edit: Edit
) -> None:
    odd = edit(prompt="?", target="\u200b", tags=["odd"])
    assert [each["code"] for each in odd["warnings"]] == [
        "prompt_says_nothing",
        "target_hidden_characters",
    ]
    shown: list[dict[str, Any]] = client.get("/edits?tag=odd").json()["data"]
    assert shown[0]["warnings"] == odd["warnings"]
    assert "warnings" not in edit(prompt="What is it?")
