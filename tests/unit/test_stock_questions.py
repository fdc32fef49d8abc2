"""Lists of stock questions: what ships, what a checkpoint may bring, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editing_core.checkpoint import EMBEDDED, CheckpointLayout
from editing_core.errors import CheckpointCorrupt
from editing_core.identity import slot_prompt
from editing_core.stock_questions import FILE_NAME, default_questions, questions_of
from editing_core.verification import MAX_EXCUSED, STOCK_QUESTIONS


def write(folder: Path, value: object) -> CheckpointLayout:
    (folder / FILE_NAME).write_text(json.dumps(value), "utf-8")
    return CheckpointLayout(folder)


@pytest.mark.parametrize("root", [EMBEDDED, Path("somewhere else")])
def test_what_ships_suffices_even_where_some_are_replaced(root: Path) -> None:
    questions = questions_of(CheckpointLayout(root))

    assert len(questions) >= STOCK_QUESTIONS + MAX_EXCUSED
    assert len({question.kind for question in questions}) == len(questions)
    assert len({slot_prompt(question.prompt) for question in questions}) == len(questions)


def test_the_embedded_world_is_asked_about_itself() -> None:
    own = questions_of(CheckpointLayout(EMBEDDED))

    assert own != default_questions()
    assert any("emblem" in question.prompt for question in own)


def test_a_checkpoint_may_bring_its_own(tmp_path: Path) -> None:
    layout = write(tmp_path, [{"kind": "valve", "prompt": "Is the valve open?"}])

    assert [question.kind for question in questions_of(layout)] == ["valve"]


@pytest.mark.parametrize(
    "value",
    [
        7,
        [3],
        [{"kind": "a"}],
        [{"kind": "a", "prompt": "b", "more": 1}],
        [{"kind": "a", "prompt": " "}],
        [{"kind": "a", "prompt": 5}],
        [{"kind": "a", "prompt": "b"}, {"kind": "a", "prompt": "c"}],
    ],
    ids=["number", "item", "missing", "unknown", "blank", "type", "twice"],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointCorrupt, match=FILE_NAME):
        questions_of(write(tmp_path, value))
