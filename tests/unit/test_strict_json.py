"""What is read, what is refused, and one spelling for digests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidJson
from app.strict_json import MAX_DEPTH, MAX_PARTS, canonical, parse

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


MEBIBYTE = 2**20
COSTLY = {
    "lists": b"[" + b"[]," * MEBIBYTE + b"[]]",
    "objects": b"[" + b'{"a":{}},' * 200_000 + b"1]",
    "fields": b"{" + b",".join(b'"%d":0' % i for i in range(150_000)) + b"}",
    "strings": b"[" + b'"",' * 150_000 + b'""]',
    "open-lists": b"[" * MEBIBYTE,
    "commas": b"," * MEBIBYTE,
    "quotes": b"," * (MAX_PARTS + 1) + b'"' * MEBIBYTE,
    "open-string": b'["' + b'\\"' * MEBIBYTE + b"," * (MAX_PARTS + 1),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_body_of_a_million_parts_is_refused_before_it_is_built(name: str) -> None:
    """The limits of memory and time are not measured here; that nothing was built is."""
    with pytest.raises(InvalidJson, match=r"not JSON" if name == "open-string" else "more than"):
        parse(COSTLY[name])


def test_the_limit_of_parts() -> None:
    assert len(parse(b"[" + b"0," * (MAX_PARTS - 2) + b"0]")) == MAX_PARTS - 1
    with pytest.raises(InvalidJson, match="more than 100,000"):
        parse(b"[" + b"0," * MAX_PARTS + b"0]")


def test_what_stands_in_a_string_is_no_part() -> None:
    text = ',:[{\\"' * MAX_PARTS

    assert parse(f'["{text}"]'.encode()) == [text.replace("\\", "")]
