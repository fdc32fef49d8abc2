"""Emblems are functions of their seed, and look-alikes differ in exactly what was asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editing_core.heraldry.emblem import (
    NUM_KNOWN,
    Emblem,
    change,
    emblem_from_seed,
    stream,
    twin,
)

seeds = st.integers(min_value=0, max_value=10**6)


@given(seed=seeds)
def test_the_same_seed_gives_the_same_emblem(seed: int) -> None:
    assert emblem_from_seed(seed) == emblem_from_seed(seed)


@given(seed=seeds)
def test_every_charge_stands_out_from_the_field(seed: int) -> None:
    emblem = emblem_from_seed(seed)
    for charge in emblem.charges:
        assert charge.colour not in emblem.field_colours
    assert emblem.border not in emblem.field_colours
    assert (emblem.second_colour is None) == (emblem.pattern == "plain")


@given(seed=seeds, pick=st.integers(min_value=0, max_value=100))
def test_a_change_alters_the_named_attribute(seed: int, pick: int) -> None:
    emblem = emblem_from_seed(seed)
    attributes = list(emblem.attributes())
    attribute = attributes[pick % len(attributes)]
    changed = change(emblem, attribute, np.random.default_rng(pick))
    assert _seen(changed, attribute) != _seen(emblem, attribute)


@given(seed=seeds)
def test_a_twin_differs_in_one_attribute(seed: int) -> None:
    emblem = emblem_from_seed(seed)
    other, attribute = twin(emblem, np.random.default_rng(seed))
    assert other != emblem
    before, after = emblem.attributes(), other.attributes()
    differing = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    if attribute == "arrangement":
        # Standing one above the other, the same two charges are called by other names.
        assert emblem.charges == other.charges
    else:
        assert differing == {attribute}


def test_an_attribute_that_is_not_there_is_named_in_the_error() -> None:
    plain = next(e for s in range(100) if (e := emblem_from_seed(s)).pattern == "plain")
    with pytest.raises(KeyError, match="shows no 'second_colour'; it shows: outline"):
        change(plain, "second_colour", np.random.default_rng(0))


def test_known_seeds_wrap_around() -> None:
    assert emblem_from_seed(3, "known") == emblem_from_seed(3 + NUM_KNOWN, "known")


def test_no_known_or_unseen_probe_is_a_training_emblem() -> None:
    trained = {emblem_from_seed(seed, "train") for seed in range(3000)}
    probes = [emblem_from_seed(500_000 + seed) for seed in range(600)]
    shared = sum(probe in trained for probe in probes)
    # The world is finite: chance may repeat a very plain emblem, never more.
    assert shared <= 3


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        emblem_from_seed(-1)


def test_streams_of_different_splits_differ() -> None:
    assert stream("unseen", 1).integers(1 << 60) != stream("train", 1).integers(1 << 60)


def _seen(emblem: Emblem, attribute: str) -> str | None:
    return emblem.attributes().get(attribute)
