"""What is read, what is refused, and one spelling for digests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidJson
from app.strict_json import MAX_DEPTH, canonical, parse

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab\u00e9\u4e2d"), inner),
    max_leaves=20,
)


@given(VALUES)
def test_json_comes_back(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value
    assert parse(canonical(value)) == value
    assert canonical(parse(canonical(value))) == canonical(value)


@given(st.binary(max_size=60))
def test_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        value = parse(data)
    except InvalidJson:
        return
    assert json.loads(data) == value


@pytest.mark.parametrize(("depth", "is_read"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False)])
@pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["list", "object"]
)
def test_the_limit_of_nesting(depth: int, is_read: bool, opening: str, closing: str) -> None:
    body = (opening * depth + "1" + closing * depth).encode()
    if is_read:
        parse(body)
    else:
        with pytest.raises(InvalidJson, match="nested"):
            parse(body)


def test_a_surrogate_pair_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"
