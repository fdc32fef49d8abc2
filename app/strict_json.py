"""JSON as the contract wants it: nothing lenient, nothing that two parsers could read differently.

Refused: wrong encoding, byte order marks, NaN and infinities (also written as 1e999), repeated
keys, lone surrogates, numbers of absurd length, and nesting beyond `MAX_DEPTH`.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from app.errors import InvalidJson

MAX_DEPTH = 64


def parse(body: bytes) -> Any:
    """The value that `body` holds. Raises `InvalidJson`."""
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
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidJson("A string holds half of a surrogate pair.") from error


def _short(error: ValueError) -> str:
    text = str(error)
    return text if len(text) < 120 else text[:117] + "..."
