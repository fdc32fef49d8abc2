"""ULIDs: 26 characters that sort by time (https://github.com/ulid/spec)."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80
_LENGTH = 26


def new_ulid() -> str:
    """An id for something that needs no order: a request, an answer."""
    return _encode(_now_ms() << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS))


def is_ulid(text: str) -> bool:
    return len(text) == _LENGTH and text[0] <= "7" and all(c in _ALPHABET for c in text)


class UlidSequence:
    """Strictly increasing ids, whatever the clock does: their order is the order of commits.

    Not safe for concurrent use; the writer owns it.
    """

    def __init__(self, *, after: str | None = None) -> None:
        self._last = _decode(after) if after else 0

    def next(self) -> str:
        fresh = _now_ms() << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        self._last = max(fresh, self._last + 1)
        return _encode(self._last)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _encode(value: int) -> str:
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def _decode(text: str) -> int:
    value = 0
    for character in text:
        value = value << 5 | _ALPHABET.index(character)
    return value
