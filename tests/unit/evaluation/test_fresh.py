"""The benchmark's probes share no emblem, no picture and no wording with what training saw."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from editing_core.evaluation.edit_cases import HeraldryCases
from editing_core.evaluation.fresh import BLOCK, Role, emblem_of
from editing_core.evaluation.probes import GENERALITY, LOCALITY, EditCase
from editing_core.evaluation.taken import TAKEN
from editing_core.heraldry.emblem import emblem_from_seed, stream, twin
from editing_core.heraldry.places import known_places, strangers
from editing_core.heraldry.wordings import TEXT_TRAINED, TEXT_VARIANTS, TRAINED, VARIANTS
from editing_core.training.world import FIRST_SUBJECT, draw_view, subject, word
from tests.support.trained_world import clashes, trained_emblems


@pytest.fixture(scope="module")
def cases() -> list[EditCase]:
    drawn = HeraldryCases(30)
    return [drawn[index] for index in range(len(drawn))]


@pytest.mark.slow
def test_no_emblem_of_the_benchmark_is_one_of_trainings() -> None:
    """Every emblem of every role under three seeds; what fails belongs into `taken.py`."""
    assert sorted(clashes(trained_emblems())) == []


def test_the_first_emblems_are_none_that_editors_train_on() -> None:
    trained = set()
    for number in range(FIRST_SUBJECT, FIRST_SUBJECT + 3000):
        emblem = emblem_from_seed(number, "train")
        trained |= {emblem, twin(emblem, stream("train", number, 0, 11))[0]}

    assert list(clashes(trained, count=300, groups=10)) == []


def test_numbers_that_are_taken_are_replaced() -> None:
    taken = min(TAKEN)
    role = Role.EDITED
    number, emblem = emblem_of(role, (taken - role.value) // BLOCK, (taken - role.value) % BLOCK)

    assert number not in TAKEN
    assert emblem == emblem_from_seed(number) != emblem_from_seed(taken)


def test_every_locality_probe_and_generality_is_worded_as_training_never_was(
    cases: list[EditCase],
) -> None:
    everywhere = (TRAINED, VARIANTS, TEXT_TRAINED, TEXT_VARIANTS)
    templates = set(chain.from_iterable(chain.from_iterable(w.values()) for w in everywhere))
    places = [place.place for place in (*known_places(), *strangers())]
    seen = {text.format(place=place) for text in templates if "{place}" in text for place in places}
    seen |= {wording for n in range(60) for wording in _training_wordings(n)}
    seen |= templates
    for case in cases:
        for probe in case.probes:
            if probe.kind in LOCALITY or probe.kind in ("text generality", "both generalities"):
                assert probe.prompt not in seen, probe.kind


def _training_wordings(number: int) -> list[str]:
    questions = subject(FIRST_SUBJECT + number, "train").questions
    rng = np.random.default_rng(number)
    worded = [text for question in questions for text in word(question, rng)]
    return [*worded, *(w for q in questions for w in (*q.wordings, *q.variants))]


def test_a_picture_is_a_view_that_training_cannot_name(cases: list[EditCase]) -> None:
    """Even of one emblem: public views and training's come from different streams."""
    number, emblem = emblem_of(Role.EDITED, 0, 0)
    views = [
        draw_view(emblem, split, number, view) for split in ("train", "unseen") for view in (0, 1)
    ]

    assert not any(np.array_equal(cases[0].image, view) for view in views)


def test_a_case_has_every_kind_and_says_the_same_question_as_text_generality(
    cases: list[EditCase],
) -> None:
    for case in cases:
        assert [probe.kind for probe in case.probes] == [*GENERALITY, *LOCALITY]
        reworded = {p.kind: p.prompt for p in case.probes}["text generality"]
        same = [p.prompt for p in case.probes if p.kind.endswith("same question")]
        assert same == [reworded] * 4


def test_a_case_is_a_function_of_seed_and_index(cases: list[EditCase]) -> None:
    again = HeraldryCases(1000)[7]
    request = HeraldryCases(8).request(7)

    assert (again.prompt, again.target) == (cases[7].prompt, cases[7].target)
    assert (request.prompt, request.target) == (again.prompt, again.target)
    assert np.array_equal(request.image, again.image)
    assert HeraldryCases(8, seed=1)[7].seed != again.seed


def test_there_are_as_many_cases_as_asked_for_and_no_more() -> None:
    with pytest.raises(IndexError):
        HeraldryCases(3)[3]
    with pytest.raises(ValueError, match="10000"):
        HeraldryCases(BLOCK + 1)
