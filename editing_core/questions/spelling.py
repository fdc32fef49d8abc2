"""Typing errors mended before a question is read.

One wrong letter shatters a word into pieces that mean nothing to an encoder.
A word that the encoder's vocabulary does not hold is exchanged for the commonest word of the
vocabulary that is one slip away: a letter missing, doubled, wrong, or two letters swapped (Damerau,
1964). A vocabulary of word pieces is sorted by how common they are. Inflections of known words stay
as they are, and so does what has no such neighbour: names, codes, other languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

_WORD = re.compile(r"[a-z]+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ENDINGS = ("s", "es", "d", "ed", "ing", "ly", "er", "est", "ness")
_LEAST_LETTERS = 4
_KEPT_WORDS = 20_000


class Spelling:
    """Mends words of one vocabulary, `{piece: rank}`, the commonest first. Thread-safe."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._ranks = {
            word: rank for word, rank in vocabulary.items() if _WORD.fullmatch(word) is not None
        }
        self._mended = lru_cache(_KEPT_WORDS)(self._mend)

    def __call__(self, text: str) -> str:
        """`text` in lower case, its words mended."""
        return _WORD.sub(lambda match: self._mended(match.group()), text.lower())

    def _mend(self, word: str) -> str:
        if len(word) < _LEAST_LETTERS or word in self._ranks or self._is_inflection(word):
            return word
        known = [near for near in _one_slip_away(word) if near in self._ranks and len(near) > 2]
        return min(known, key=self._ranks.__getitem__, default=word)

    def _is_inflection(self, word: str) -> bool:
        return any(
            word.endswith(ending) and word[: -len(ending)] in self._ranks for ending in _ENDINGS
        )


def _one_slip_away(word: str) -> Iterator[str]:
    for i in range(len(word) + 1):
        head, tail = word[:i], word[i:]
        for letter in _LETTERS:
            yield head + letter + tail
        if not tail:
            continue
        yield head + tail[1:]
        for letter in _LETTERS:
            yield head + letter + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
