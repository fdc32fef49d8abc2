"""Wordings made rougher for training: slips of the keyboard, lower case, no punctuation."""

from __future__ import annotations

import re

import numpy as np

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEXT_TO = {
    letter: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in _ROWS
    for i, letter in enumerate(row)
}
_WORD = re.compile(r"[A-Za-z]{4,}")
_SLIP_SHARE, _LOWER_SHARE, _BARE_SHARE = 0.25, 0.10, 0.05


def roughened(text: str, rng: np.random.Generator) -> str:
    """`text` as it is, or with one or two slips, in lower case, or without its end."""
    if rng.random() < _SLIP_SHARE:
        for _ in range(int(rng.integers(1, 3))):
            text = with_slip(text, rng)
    way = rng.random()
    if way < _LOWER_SHARE:
        return text.lower().rstrip("?.! ")
    return text.rstrip("?.!") if way < _LOWER_SHARE + _BARE_SHARE else text


def with_slip(text: str, rng: np.random.Generator) -> str:
    """One letter inside a word of four letters or more is swapped, dropped, doubled or missed."""
    words = list(_WORD.finditer(text))
    if not words:
        return text
    word = words[int(rng.integers(len(words)))]
    at = int(rng.integers(word.start() + 1, word.end() - 1))
    letter, way = text[at], rng.random()
    if way < 0.35:
        return text[:at] + text[at + 1] + letter + text[at + 2 :]
    if way < 0.6:
        return text[:at] + text[at + 1 :]
    if way < 0.8:
        return text[:at] + letter + text[at:]
    near = _NEXT_TO[letter.lower()]
    return text[:at] + near[int(rng.integers(len(near)))] + text[at + 1 :]
