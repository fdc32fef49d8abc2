"""What is known of a question and an edit's prompt: the same, another, or often mistaken for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from editing_core.errors import CheckpointCorrupt
from editing_core.heraldry.intents import intents
from editing_core.heraldry.wordings import HELD_OUT
from editing_core.questions.corpus import read_corpus
from editing_core.questions.encoder import SHIPPED
from editing_core.questions.known import FILE_NAME, Judged, KnownQuestions, load_known, save_known
from editing_core.training.questions import HOME


def direction(degrees: float) -> NDArray[np.float32]:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def table(
    centres: list[float], others: list[float], *, topics: list[int] | None = None
) -> KnownQuestions:
    """An intent a centre, each with the confusable of its place, known from a cosine of .9 on."""
    numbers = np.arange(len(centres), dtype=np.int32)
    return KnownQuestions(
        np.stack([direction(angle) for angle in centres]),
        numbers,
        np.array(topics or [0] * len(centres), np.int32),
        np.stack([direction(angle) for angle in others]),
        numbers[: len(others)],
        least=0.9,
    )


def judged(known: KnownQuestions, question: float, *, prompt: float, wording: float) -> Judged:
    own = np.cos(np.radians([question - wording])).astype(np.float32)
    return known.judge(direction(question)[None], own, direction(prompt)[None])


def test_two_known_wordings_of_one_intent_are_as_sure_as_the_less_sure_one() -> None:
    known = table([0.0], [180.0])
    found = judged(known, -20.0, prompt=15.0, wording=15.0)
    np.testing.assert_allclose(found.same, np.cos(np.radians(20.0)), atol=1e-6)
    assert not found.excluded[0]


@pytest.mark.parametrize(("question", "prompt"), [(40.0, 0.0), (0.0, 40.0)])
def test_of_what_is_not_known_nothing_is_said(question: float, prompt: float) -> None:
    found = judged(table([0.0], [180.0]), question, prompt=prompt, wording=prompt)
    assert found.same[0] == -1.0
    assert not found.excluded[0]


def test_a_confusable_that_is_nearer_than_the_intent_excludes() -> None:
    known = table([0.0], [50.0])
    assert judged(known, 40.0, prompt=5.0, wording=5.0).excluded[0]
    assert not judged(known, 20.0, prompt=5.0, wording=5.0).excluded[0]
    # The confusable is nearer than the intent, and farther than a rephrase of the edit.
    assert not judged(known, 40.0, prompt=5.0, wording=41.0).excluded[0]


def test_a_confusable_that_the_prompt_is_nearer_to_is_none_of_its() -> None:
    known = table([0.0], [25.0])
    assert judged(known, 30.0, prompt=5.0, wording=5.0).excluded[0]
    assert not judged(known, 30.0, prompt=20.0, wording=-60.0).excluded[0]


def test_another_intent_of_the_topic_excludes_where_both_are_clearly_their_own() -> None:
    known = table([0.0, 60.0], [180.0])
    assert judged(known, 55.0, prompt=5.0, wording=5.0).excluded[0]
    assert not judged(known, 55.0, prompt=5.0, wording=54.0).excluded[0]
    close = table([0.0, 20.0], [180.0])
    assert not judged(close, 19.0, prompt=1.0, wording=1.0).excluded[0]
    elsewhere = table([0.0, 60.0], [180.0], topics=[0, 1])
    assert not judged(elsewhere, 55.0, prompt=5.0, wording=5.0).excluded[0]


def test_centres_of_one_intent_speak_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "known.safetensors"
    centres, others = np.stack([direction(0.0), direction(60.0)]), direction(180.0)[None]
    for names, same in (([("t", "a")] * 2, True), ([("t", "a"), ("t", "b")], False)):
        save_known(file, centres, names, others, [("t", "a")])
        found = judged(load_known(file, dim=2, least=0.9), 55.0, prompt=5.0, wording=5.0)
        assert bool(found.same[0] > 0.9) is same
        assert bool(found.excluded[0]) is not same


def test_a_table_of_another_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "known.safetensors"
    key = direction(0.0)[None]
    save_known(file, key, [("t", "a")], key, [("t", "a")])
    with pytest.raises(CheckpointCorrupt, match="does not fit"):
        load_known(file, dim=3, least=0.9)


def test_the_embedded_world_brings_no_held_out_wording_and_names_intents_as_the_corpus() -> None:
    world = list(intents())
    asked = {wording for _, wordings in world for wording in wordings}
    held_out = {w for wordings in HELD_OUT.values() for w in wordings if "{" not in w}
    assert asked.isdisjoint(held_out)
    assert "{" not in json.dumps(sorted(asked))
    by_hand = {intent.name for intent in read_corpus() if intent.topic == HOME}
    assert by_hand <= {name for name, _ in world}


def test_the_shipped_table_is_of_the_shipped_corpus_and_knows_every_intent() -> None:
    corpus = read_corpus()
    known = load_known(SHIPPED / FILE_NAME, dim=384, least=0.55)
    names = [(intent.topic, intent.name) for intent in corpus]
    nearest = known.nearest(np.ones(384, np.float32), len(corpus), corpus=names)
    assert sorted(nearest) == list(range(len(corpus)))
    assert known.nearest(np.ones(384, np.float32), 3, corpus=names[1:]) == []
