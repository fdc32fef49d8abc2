"""A guess changes how soon an answer comes, and never which."""

from __future__ import annotations

from dataclasses import replace

import pytest

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.experts.memory import Snapshot
from editing_core.types import GenerationResult, Sampling
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

PROMPT = "Is the star blue?"


@pytest.fixture(scope="module")
def snapshot(tiny_model: EditableModel) -> Snapshot:
    return snapshot_with(tiny_model, tiny_image(0), PROMPT, "the blue", editor="fitted")


@pytest.fixture(scope="module")
def rows(snapshot: Snapshot) -> list[GenerationRow]:
    """Edited and not, with a picture and without, of several lengths."""
    return [
        GenerationRow(PROMPT, tiny_image(0), snapshot=snapshot),
        GenerationRow(PROMPT, tiny_image(0), Sampling(9)),
        GenerationRow("What is this? " * 3, tiny_image(1), Sampling(7), snapshot),
        GenerationRow("q", None, Sampling(1)),
    ]


def confirmed(model: EditableModel, rows: list[GenerationRow]) -> dict[int, GenerationResult]:
    return model.confirm([model.prepare(row) for row in rows], dict(enumerate(rows)))


def test_answers_that_were_guessed_are_those_that_are_written(
    tiny_model: EditableModel, rows: list[GenerationRow]
) -> None:
    written = [tiny_model.generate([row])[0] for row in rows]
    right = [
        replace(row, guess=result.token_ids) for row, result in zip(rows, written, strict=True)
    ]
    found = confirmed(tiny_model, right)

    assert written[0].decision.applied
    assert written[0].text == "the blue"
    for b, expected in enumerate(written):
        assert found[b].token_ids == expected.token_ids
        assert (found[b].text, found[b].finish_reason) == (expected.text, expected.finish_reason)
        assert found[b].prompt_tokens == expected.prompt_tokens
        acting = [[c.edit_id for c in r.decision.applied] for r in (found[b], expected)]
        assert acting[0] == acting[1]
    told: list[str] = [""] * len(rows)

    def on_tokens(b: int, text: str) -> None:
        told[b] += text

    again = tiny_model.generate([right[0], rows[1], *right[2:]], on_tokens=on_tokens)
    assert [r.token_ids for r in again] == [r.token_ids for r in written]
    assert told == [r.text for r in written]


def test_a_guess_may_be_text(tiny_model: EditableModel, rows: list[GenerationRow]) -> None:
    assert confirmed(tiny_model, [replace(rows[0], guess="the blue")])[0].text == "the blue"


def test_a_wrong_guess_is_dropped(tiny_model: EditableModel, rows: list[GenerationRow]) -> None:
    written = [tiny_model.generate([row])[0] for row in rows]
    ids = [list(result.token_ids) for result in written]
    too_short, another, too_long = ids[0][:-1], [*ids[1][:-1], ids[1][-1] ^ 1], [*ids[2], 5]
    wrong = [
        replace(row, guess=tuple(guess))
        for row, guess in zip(rows, [too_short, another, too_long, []], strict=True)
    ]

    assert confirmed(tiny_model, wrong) == {}
    assert [r.token_ids for r in tiny_model.generate(wrong)] == [r.token_ids for r in written]


def test_what_is_drawn_is_not_guessed(tiny_model: EditableModel) -> None:
    row = GenerationRow("q", None, Sampling(3, temperature=1.0, seed=1))
    (drawn,) = tiny_model.generate([row])

    assert confirmed(tiny_model, [replace(row, guess=drawn.token_ids)]) == {}


def test_a_guess_that_does_not_fit_beside_its_question_is_dropped(
    tiny_model: EditableModel,
) -> None:
    row = GenerationRow("q", None, guess=(5,) * tiny_model.backbone.max_positions)

    assert confirmed(tiny_model, [row]) == {}


@pytest.mark.parametrize("tokens", [1, 150, 10_000])
def test_who_acts_is_told_without_an_answer(
    tiny_model: EditableModel, rows: list[GenerationRow], tokens: int
) -> None:
    """However many rows a pass takes."""
    decided = tiny_model.decide(rows, tokens_at_once=tokens)
    answered = tiny_model.generate(rows)

    for decision, result in zip(decided, answered, strict=True):
        pairs = zip(decision.candidates, result.decision.candidates, strict=True)
        for found, expected in pairs:
            assert (found.edit_id, found.outcome) == (expected.edit_id, expected.outcome)
            assert found.weight == pytest.approx(expected.weight, abs=1e-4)
    assert decided[0].applied
