"""Groups of edits that meet: what the members share, and what tells them apart."""

from __future__ import annotations

import numpy as np
import pytest

from editing_core.evaluation.groups import BY_NAME, SETS, GroupCases
from editing_core.evaluation.probes import GENERALITY, PORTABILITY, EditCase
from editing_core.heraldry.places import known_places

GROUPS = 6


def groups_of(name: str) -> list[list[EditCase]]:
    cases = GroupCases(name, GROUPS)
    size = cases.size
    return [[cases[size * g + member] for member in range(size)] for g in range(GROUPS)]


@pytest.mark.parametrize("name", ["2 questions, one picture", "4 questions, one picture"])
def test_questions_on_one_picture_differ_in_kind_and_target(name: str) -> None:
    for members in groups_of(name):
        assert len({case.target for case in members}) == len(members)
        assert len({case.prompt for case in members}) == len(members)
        assert len({case.question_kind for case in members}) == len(members)
        assert all(np.array_equal(case.image, members[0].image) for case in members)


@pytest.mark.parametrize("name", ["2 look-alikes, one question", "4 look-alikes, one question"])
def test_look_alikes_are_asked_the_same_about_different_pictures(name: str) -> None:
    for members in groups_of(name):
        assert len({case.target for case in members}) == len(members)
        assert len({case.prompt for case in members}) == 1
        assert len({case.image.tobytes() for case in members}) == len(members)


def test_a_two_hop_probe_asks_for_a_fact_of_the_place_that_was_taught() -> None:
    by_name = {place.place: place for place in known_places()}
    for (case,) in groups_of("two-hop"):
        probes = {probe.kind: probe for probe in case.probes}
        place = by_name[case.target]
        hop, named = probes[PORTABILITY], probes[BY_NAME]
        assert hop.answer == named.answer
        assert hop.answer in {place.capital, place.founder, place.region, place.trade, place.river}
        assert hop.image is not None
        assert named.image is None
        assert case.target in named.prompt
        assert not hop.is_locality
        assert case.expected(hop, "before") == hop.answer


@pytest.mark.parametrize("name", SETS)
def test_groups_are_numbered_and_drawn_again_the_same(name: str) -> None:
    first, again = GroupCases(name, GROUPS), GroupCases(name, GROUPS + 1)

    assert len(first) == GROUPS * first.size
    for index in (0, len(first) - 1, 1):
        assert first[index].target == again[index].target
        assert first.request(index).prompt == first[index].prompt
    assert first[0].group != first[len(first) - 1].group
    assert set(first.kinds) >= set(GENERALITY)
    assert GroupCases(name, 1, seed=1)[0].seed != first[0].seed


def test_unknown_sets_and_too_many_groups_are_told() -> None:
    with pytest.raises(LookupError, match="two-hop"):
        GroupCases("three-hop", 1)
    with pytest.raises(ValueError, match="250"):
        GroupCases("two-hop", 251)
    with pytest.raises(IndexError):
        GroupCases("two-hop", 1)[1]
