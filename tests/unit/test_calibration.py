"""Thresholds chosen from scores: right where the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from editing_core.routing.calibration import (
    any_of,
    choose_cut,
    choose_mix,
    choose_tau,
    fit_gate,
    tail_share,
)


def test_tau_keeps_the_share_of_true_views_it_must() -> None:
    own = np.random.default_rng(0).normal(0.93, 0.02, 5000).astype(np.float32)

    tau = choose_tau(own, keep=0.99, slack=0.0)

    assert (own >= tau).mean() == pytest.approx(0.99, abs=0.002)
    assert choose_tau(own, keep=0.99, slack=0.05) == pytest.approx(tau - 0.05, abs=1e-3)


def test_a_cut_lies_in_the_middle_of_a_clean_gap() -> None:
    wanted = np.array([0.8, 0.9, 0.95], dtype=np.float32)
    unwanted = np.array([0.1, 0.2, 0.3], dtype=np.float32)

    assert 0.3 < choose_cut(wanted, unwanted) < 0.8


def test_a_cut_balances_the_two_errors() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(1.0, 1.0, 4000).astype(np.float32)
    unwanted = random.normal(-1.0, 1.0, 4000).astype(np.float32)

    cut = choose_cut(wanted, unwanted)
    careful = choose_cut(wanted, unwanted, wanted_cost=5.0)

    assert cut == pytest.approx(0.0, abs=0.25)
    assert careful < cut


def test_the_picture_counts_when_it_tells_and_not_when_it_does_not() -> None:
    same_text = torch.zeros(200)
    telling = torch.linspace(0.01, 0.03, 200)
    own = (same_text, torch.full((200,), 2.0), 0.9 + telling)
    rival = (same_text, torch.full((200,), 2.0), torch.full((200,), 0.9))
    blank = (same_text, torch.zeros(200), torch.zeros(200))

    alpha, beta = choose_mix(own, rival)

    assert alpha > 0
    assert beta == 0.0
    assert choose_mix(blank, blank) == (0.0, 0.0)


def test_a_gate_is_laid_between_what_is_wanted_and_what_is_not() -> None:
    random = np.random.default_rng(0)
    wanted = random.normal(0.6, 0.1, 300).astype(np.float32)
    unwanted = random.normal(0.1, 0.1, 3000).astype(np.float32)

    slope, bias = fit_gate(wanted, unwanted)

    # Equal spreads: the line crosses zero halfway, however many there are of each.
    assert -bias / slope == pytest.approx(0.35, abs=0.02)
    assert slope == pytest.approx(0.5 / 0.1**2, rel=0.2)


@pytest.mark.parametrize(
    ("wanted", "unwanted"), [([1.0, 1.0], [1.0, 1.0]), ([0.9, 1.0], [0.0, 0.1]), ([0.1], [0.9])]
)
def test_a_gate_is_finite_and_never_upside_down(wanted: list[float], unwanted: list[float]) -> None:
    slope, bias = fit_gate(np.array(wanted, np.float32), np.array(unwanted, np.float32))

    assert np.isfinite([slope, bias]).all()
    assert slope >= 0.0


def test_a_tail_reaches_beyond_its_sample() -> None:
    """Of an exponential distribution, of which the share above any cut is known."""
    sample = np.random.default_rng(0).exponential(0.05, 200_000).astype(np.float32)

    assert tail_share(sample, 0.1) == pytest.approx(np.exp(-2.0), rel=0.02)
    assert tail_share(sample, 0.9) == pytest.approx(np.exp(-18.0), rel=0.7)
    assert tail_share(np.full(50, 0.5, dtype=np.float32), 0.6) == 0.0


def test_many_edits_fire_more_often_than_one() -> None:
    assert any_of(1, 0.01) == pytest.approx(0.01)
    assert any_of(10_000, 1e-6) == pytest.approx(0.00995, rel=1e-3)
    assert any_of(10_000, 1.0) == pytest.approx(1.0)
