"""What is odd about a correction, and may be meant all the same: told with the edit.

A function of its texts and of nothing else, so that an edit is always shown with the same warnings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from app.edits.edit import Correction

# Words that say nothing alone: a question of these has no subject.
_EMPTY_WORDS = {
    "a",
    "an",
    "and",
    "at",
    "by",
    "for",
    "in",
    "is",
    "it",
    "of",
    "on",
    "or",
    "the",
    "to",
}
_WORD = re.compile(r"\w+")
_LOOKS_SPECIAL = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|</?[A-Za-z_][A-Za-z_-]{0,30}>|\[/?[A-Z]{2,10}\]", re.ASCII
)
# Part of how words and emoji are written: hidden, and no oddity inside of visible text.
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
# Letters and symbols, by their category, that show nothing.
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"


@dataclass(frozen=True, slots=True)
class EditWarning:
    """`code` is stable, `message` is for people."""

    code: str
    message: str


def warnings_of(wanted: Correction) -> tuple[EditWarning, ...]:
    """In no order that means anything."""
    return (
        *_of_prompts((wanted.prompt, *wanted.rephrases)),
        *_of_target(wanted.target),
    )


def _of_prompts(prompts: Iterable[str]) -> Iterable[EditWarning]:
    for prompt in dict.fromkeys(prompts):
        words = _WORD.findall(prompt.casefold())
        if not set(words) - _EMPTY_WORDS:
            yield EditWarning(
                "prompt_says_nothing",
                f"The prompt {prompt!r} has no word that says what is asked. Edits are told apart "
                "by words, so this one may answer other questions about its picture.",
            )


def _of_target(target: str) -> Iterable[EditWarning]:
    hidden = [letter for letter in target if _is_hidden(letter)]
    shown = any(not _is_hidden(letter) and not letter.isspace() for letter in target)
    if shown:
        hidden = [letter for letter in hidden if letter not in _JOINERS]
    if hidden:
        names = ", ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(hidden))
        what = "holds characters that do not show" if shown else "shows nothing"
        yield EditWarning("target_hidden_characters", f"The target {what}: {names}.")
    if found := _LOOKS_SPECIAL.search(target):
        yield EditWarning(
            "target_looks_special",
            f"The target spells {found.group()!r}, which may be a special token of a model. It is "
            "answered as plain text.",
        )


def _is_hidden(letter: str) -> bool:
    if letter in _BLANKS or letter in _JOINERS:
        return True
    return unicodedata.category(letter) in ("Cf", "Cc") and not letter.isspace()
