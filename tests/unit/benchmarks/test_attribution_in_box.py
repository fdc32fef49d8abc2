"""What `benchmarks.attribution_in_box` counts, on maps whose every share is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.attribution_in_box import asked, boxes_table, curve_section, hit_of


def test_mass_and_area_of_whole_patches() -> None:
    influence = np.zeros((4, 4), dtype=np.float32)
    influence[1, 2], influence[3, 0] = 3.0, 1.0

    hit = hit_of(influence, (24, 12, 36, 24), 48)

    assert hit.area == pytest.approx(1 / 16)
    assert hit.mass == pytest.approx(0.75)
    assert hit.ratio == pytest.approx(12)
    assert hit.is_brightest
    assert not hit_of(influence, (0, 36, 12, 48), 48).is_brightest


def test_a_patch_on_the_edge_counts_in_part() -> None:
    even = np.ones((3, 6), dtype=np.float32)  # a grid that is not square

    for box in ((0, 0, 96, 96), (5, 7, 50, 60), (95, 95, 96, 96)):
        assert hit_of(even, box, 96).ratio == pytest.approx(1, rel=1e-6)


def test_questions_are_about_charges_that_have_a_box() -> None:
    drawn = list(itertools.islice(asked(1_000, of_charges=True), 30))

    assert all(question.regions for _, question, _ in drawn)
    assert all(prompt in question.held_out_wordings for _, question, prompt in drawn)
    again = itertools.islice(asked(1_000, of_charges=True), 30)
    assert [prompt for _, _, prompt in again] == [prompt for _, _, prompt in drawn]
    assert any(not q.regions for _, q, _ in itertools.islice(asked(1_000, of_charges=False), 30))


def test_tables_keep_small_and_large_boxes_apart() -> None:
    influence = np.zeros((4, 4), dtype=np.float32)
    influence[0, 0] = 1.0
    small, large = hit_of(influence, (0, 0, 12, 12), 48), hit_of(influence, (0, 0, 36, 36), 48)

    lines = boxes_table([small, small, large]).splitlines()

    assert "| at most 15% | 2 |" in lines[2]
    assert "**16.00**" in lines[2]
    assert "| more than 15% | 1 |" in lines[3]
    assert "**1.78**" in lines[3]


def test_the_mean_curve_picks_the_layer() -> None:
    curves = np.zeros((6, 4, 2))
    curves[:, 2:, 0] = 0.5

    assert "mean curve: **layer 1** (among all layers: layer 1" in curve_section(curves, lowest=1)
    assert "**layer 2** (among all layers: layer 1" in curve_section(curves, lowest=2)
