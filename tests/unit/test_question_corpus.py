"""The shipped corpus holds what it says, and a damaged one is refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editing_core.errors import CheckpointCorrupt
from editing_core.identity import slot_prompt
from editing_core.questions.corpus import KINDS, by_topic, read_corpus, split_of

GOOD = {"topic": "t", "intent": "i", "wordings": ["w"] * 12, "confusables": ["c"] * 10}


def test_there_are_as_many_intents_and_topics_as_promised() -> None:
    intents = read_corpus()
    assert len(intents) >= 900
    assert len({intent.topic for intent in intents}) >= 60
    assert len({(intent.topic, intent.name) for intent in intents}) >= 900


def test_no_confusable_is_a_wording_of_its_own_intent() -> None:
    for intent in read_corpus():
        own = {slot_prompt(text).casefold() for text in intent.wordings}
        assert own.isdisjoint(slot_prompt(text).casefold() for text in intent.confusables), intent


def test_splits_share_no_topic_and_leave_none_out() -> None:
    intents = read_corpus()
    splits = [by_topic(intents, split) for split in ("train", "validation", "test")]
    assert sum(len(each) for topics in splits for each in topics.values()) == len(intents)
    names = [name for topics in splits for name in topics]
    assert len(set(names)) == len(names)
    assert all(len(topics) >= 6 for topics in splits)
    assert split_of(names[0]) == "train"


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        json.dumps({**GOOD, "wordings": ["w"]}),
        json.dumps({**GOOD, "confusables": ["c"] * 9 + [" "]}),
        json.dumps({key: value for key, value in GOOD.items() if key != "topic"}),
    ],
)
def test_a_line_that_is_no_intent_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n", encoding="utf-8")
    with pytest.raises(CheckpointCorrupt, match=r"a\.jsonl:2"):
        read_corpus(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointCorrupt, match="no questions"):
        read_corpus(tmp_path)


def test_every_place_has_a_kind() -> None:
    assert len(KINDS) == 12
