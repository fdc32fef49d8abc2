from __future__ import annotations

from collections.abc import Sequence

import pytest

from editing_core.streaming import TextStream


def by_byte(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def deltas(text: str | bytes, *stop: str) -> tuple[list[str], TextStream]:
    data = text.encode() if isinstance(text, str) else text
    stream = TextStream(by_byte, stop)
    given = []
    for length in range(1, len(data) + 1):
        given.append(stream.push(list(data[:length])))
        if stream.reached_stop:
            return given, stream
    given.append(stream.finish(list(data)))
    return given, stream


def test_text_is_given_out_as_it_comes() -> None:
    given, stream = deltas("abc")
    assert given == ["a", "b", "c", ""]
    assert stream.text == "abc"


def test_a_character_waits_for_its_last_byte() -> None:
    given, _ = deltas("é🙂")
    assert given == ["", "é", "", "", "", "🙂", ""]


def test_white_space_waits_for_what_follows_and_is_trimmed() -> None:
    given, stream = deltas(" \n a b \n")
    assert [delta for delta in given if delta] == ["a", " b"]
    assert stream.text == "a b"


def test_a_broken_character_is_shown_at_the_end() -> None:
    _, stream = deltas(b"a\xe2\x82")
    assert stream.text == "a\ufffd"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one. two", [". "], "one"),
        ("one.two", [". "], "one.two"),
        ("aab", ["ab"], "a"),
        ("abc", ["bcd", "c"], "ab"),
        ("xyz", [""], "xyz"),
        ("stop", ["stop"], ""),
        ("a \nb", ["\n"], "a"),
        ("ababac", ["abac"], "ab"),
        ("half of a sto", ["stop"], "half of a sto"),
        ("Ж🙂конец", ["🙂"], "Ж"),
    ],
)
def test_stop_strings(text: str, stop: list[str], expected: str) -> None:
    given, stream = deltas(text, *stop)
    assert "".join(given) == stream.text == expected


def test_nothing_is_taken_back_when_a_decoder_shows_a_whole_run_as_broken() -> None:
    """Decoders with byte fallback do so until the last byte of a run is there."""
    shown = {1: "你", 2: "\ufffd\ufffd\ufffd\ufffd", 3: "你好"}
    stream = TextStream(lambda ids: shown[len(ids)])
    assert [stream.push([0] * n) for n in (1, 2, 3)] == ["你", "", "好"]
    assert stream.text == "你好"
