"""JSON as the contract wants it: nothing lenient, nothing that two parsers could read differently.

Refused: wrong encoding, byte order marks, NaN and infinities (also written as 1e999), repeated
keys, lone surrogates, numbers of absurd length, nesting beyond `MAX_DEPTH`, and more than
`MAX_PARTS` parts: a few bytes of JSON can become a thousand times as much in memory.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from app.errors import InvalidJson

MAX_DEPTH = 64
MAX_PARTS = 100_000
"""Commas, colons and brackets outside strings; a thousand edits with all their wordings have
fewer. It also bounds what is built: no field of a request comes near it."""

_PIECE = 256 * 1024

# One pass, whatever the bytes: a string that does not end is taken to the end of the body.
_PART_OR_STRING = re.compile(rb'[,:\[{]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def parse(body: bytes) -> Any:
    """The value that `body` holds. Raises `InvalidJson`."""
    if _has_too_many_parts(body):
        raise InvalidJson(f"The body has more than {MAX_PARTS:,} fields and elements.")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"The body is not UTF-8 (byte {error.start}).") from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH}.") from error
    except ValueError as error:
        raise InvalidJson(f"The body is not JSON: {_short(error)}.") from error
    _check(value)
    return value


def _has_too_many_parts(body: bytes) -> bool:
    """Without building anything. Most bodies are short, or one long string."""
    signs = 0
    for start in range(0, len(body), _PIECE):  # in pieces, since a count lets no other thread run
        piece = body[start : start + _PIECE]
        signs += sum(map(piece.count, (b",", b":", b"[", b"{")))
        if signs > MAX_PARTS:
            break
    else:
        return False
    parts = strings = 0
    for match in _PART_OR_STRING.finditer(body):
        if body[match.start()] == 0x22:
            strings += 1
        else:
            parts += 1
        if parts > MAX_PARTS or strings > MAX_PARTS + 1:  # between two strings is a part
            return True
    return False


def canonical(value: Any) -> bytes:
    """The one spelling of `value` that digests are made of."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode("utf-8")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _check(value: Any) -> None:
    """Depth and surrogates, without recursion."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            _refuse_lone_surrogates(item)
        elif isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise InvalidJson(f"The body is nested deeper than {MAX_DEPTH}.")
            children = [*item, *item.values()] if isinstance(item, dict) else item
            pending.extend((child, depth + 1) for child in children)


def _refuse_lone_surrogates(text: str) -> None:
    if text.isascii():  # told without reading it, and pictures are
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidJson("A string holds half of a surrogate pair.") from error


def _short(error: ValueError) -> str:
    text = str(error)
    return text if len(text) < 120 else text[:117] + "..."
