"""Questions: true answers, usable alternatives, wordings kept apart."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from editing_core.heraldry.emblem import NUM_KNOWN, emblem_from_seed
from editing_core.heraldry.places import FACT_KINDS, known_places, strangers
from editing_core.heraldry.questions import (
    PERCEPTION_KINDS,
    UNKNOWN,
    Question,
    bearing,
    describe,
    questions_about,
    text_questions,
)
from editing_core.heraldry.wordings import HELD_OUT, TEXT_HELD_OUT, TEXT_TRAINED, TRAINED, dress

seeds = st.integers(min_value=0, max_value=10**6)


def ask(seed: int) -> dict[str, Question]:
    return {q.kind: q for q in questions_about(emblem_from_seed(seed), np.random.default_rng(seed))}


@given(seed=seeds)
def test_alternatives_are_wrong_and_at_least_two(seed: int) -> None:
    for question in ask(seed).values():
        assert len(set(question.alternatives)) >= 2
        assert question.answer not in question.alternatives


@given(seed=seeds)
def test_wordings_are_enough_and_held_out_ones_are_new(seed: int) -> None:
    for question in ask(seed).values():
        assert len(question.wordings) >= 2
        assert len(question.held_out_wordings) >= 1
        assert not {*question.wordings, *question.variants} & set(question.held_out_wordings)
        assert len(question.variants) >= 3
        for wording in (*question.wordings, *question.held_out_wordings, *question.variants):
            assert "{" not in wording
            assert " a orange" not in wording


@given(seed=seeds)
def test_one_question_of_a_kind(seed: int) -> None:
    questions = questions_about(emblem_from_seed(seed), np.random.default_rng(seed))
    kinds = [question.kind for question in questions]
    assert len(kinds) == len(set(kinds))


def test_every_kind_occurs() -> None:
    seen = {kind for seed in range(200) for kind in ask(seed)}
    assert seen == {*PERCEPTION_KINDS, *FACT_KINDS}


@given(seed=seeds)
def test_answers_agree_with_the_emblem(seed: int) -> None:
    emblem = emblem_from_seed(seed)
    asked = ask(seed)
    shown = emblem.attributes()
    assert asked["outline"].answer == shown["outline"]
    assert asked["pattern"].answer == shown["pattern"]
    assert asked["border"].answer == shown["border"]
    for side in ("left", "right", "upper", "lower"):
        if f"{side}_shape" in shown:
            assert asked[f"{side}_shape"].answer == shown[f"{side}_shape"]
            assert asked[f"{side}_colour"].answer == shown[f"{side}_colour"]
    assert asked["describe"].answer == describe(emblem)
    assert asked["bearing"].answer == bearing(emblem)
    for charge in emblem.charges:
        assert charge.colour in describe(emblem)


def test_facts_of_unseen_emblems_are_unknown_and_of_known_ones_are_not() -> None:
    assert {ask(1)[kind].answer for kind in FACT_KINDS} == {UNKNOWN}
    place = known_places()[4]
    known = questions_about(emblem_from_seed(4, "known"), np.random.default_rng(0), place=place)
    facts = {q.kind: q.answer for q in known if q.group == "knowledge"}
    assert facts == {kind: place.fact(kind) for kind in FACT_KINDS}


def test_names_are_unique_and_strangers_stay_strange() -> None:
    places = known_places()
    assert len(places) == NUM_KNOWN
    names = {place.place for place in places}
    assert len(names) == NUM_KNOWN
    assert not names & {stranger.place for stranger in strangers()}


def test_text_questions_name_their_place() -> None:
    place = known_places()[0]
    for question in text_questions(place, np.random.default_rng(0), known=True):
        assert all(place.place in wording for wording in question.wordings)
        assert question.answer == place.fact(question.kind)
    for question in text_questions(strangers()[0], np.random.default_rng(0), known=False):
        assert question.answer == UNKNOWN


def test_every_kind_has_wordings_of_both_sorts() -> None:
    assert TRAINED.keys() == HELD_OUT.keys()
    assert TEXT_TRAINED.keys() == TEXT_HELD_OUT.keys()
    for kind, wordings in TRAINED.items():
        assert not set(wordings) & set(HELD_OUT[kind])


@given(seed=seeds)
def test_dressing_keeps_the_words_of_the_question(seed: int) -> None:
    dressed = dress("What colour is the star?", np.random.default_rng(seed)).lower()
    assert "what colour is the star" in dressed
