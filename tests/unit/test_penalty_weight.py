"""The learned weight of a penalty: when it counts, how far it climbs, what it reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from editing_core.objectives.penalty_weight import SUMMARY, PenaltyWeight


def make(
    phi: Tensor, *, fixed: float | None = None, cap: float = 5.0, anneal_steps: int = 0
) -> PenaltyWeight:
    weight = PenaltyWeight(fixed=fixed, cap=cap, power=1.5, anneal_steps=anneal_steps, seed=7)
    weight.attach([phi])
    return weight


def drawn(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [3, SUMMARY, SUMMARY + 1, 10_000])
def test_it_climbs_from_a_positive_number_and_never_beyond_its_cap(count: int) -> None:
    weight = make(drawn(count), cap=1.0)
    seen = []

    for _ in range(300):
        seen.append(float(weight()))
        weight.after_step()

    assert seen == sorted(seen)
    assert 0.0 < seen[0] < seen[1]
    assert seen[-1] == 1.0


def test_each_climb_is_as_long_as_the_schedule_says() -> None:
    """`1 / k^p`: its sum is finite for p above 1, so the climb ends without a cap too."""
    weight = make(drawn(2000), cap=1e9)
    assert weight.delta is not None
    for k in range(1, 6):
        before = torch.cat([p.clone().reshape(-1) for p in weight.delta.parameters()])
        weight.after_step()
        after = torch.cat([p.reshape(-1) for p in weight.delta.parameters()])
        torch.testing.assert_close((after - before).norm(), torch.tensor(k**-1.5))


def test_it_is_nothing_until_the_training_has_settled() -> None:
    weight, fixed = (make(drawn(4), fixed=f, anneal_steps=3) for f in (None, 0.5))

    found = []
    for _ in range(5):
        found.append((float(weight()), float(fixed())))
        weight.after_step()
        fixed.after_step()

    assert found[:3] == [(0.0, 0.0)] * 3
    assert found[3][0] > 0.0
    assert [value for _, value in found[3:]] == [0.5, 0.5]
    assert int(weight.climbed) == 2


def test_it_depends_on_what_is_trained_and_gives_it_a_gradient() -> None:
    phi = drawn(1000).requires_grad_()
    weight = make(phi)

    weight().backward()

    assert phi.grad is not None
    assert bool((phi.grad != 0).any())
    assert weight.delta is not None
    assert all(p.grad is None for p in weight.delta.parameters())
    before = float(weight().detach())
    with torch.no_grad():
        phi.neg_()
    assert float(weight().detach()) != before


def test_the_summary_is_bounded_in_size_and_length() -> None:
    small, large = make(drawn(5)), make(1e3 * drawn(100_000))

    torch.testing.assert_close(small.summary() / small.summary().norm(), drawn(5) / drawn(5).norm())
    assert large.summary().shape == (SUMMARY,)
    assert float(large.summary().norm()) <= 1.0 + 1e-6
    assert bool(torch.isfinite(make(torch.zeros(5)).summary()).all())


def test_the_folding_keeps_lengths_in_expectation() -> None:
    """A random projection, so that what is far apart in `phi` stays apart in the summary."""
    phi = drawn(20_000) / 20_000**0.5 * 1e-3  # so short that the unit ball does not matter
    ratios = []
    for seed in range(20):
        weight = PenaltyWeight(fixed=None, cap=1.0, power=1.5, anneal_steps=0, seed=seed)
        weight.attach([phi])
        ratios.append(float(weight.summary().square().sum() / phi.square().sum()))

    assert sum(ratios) / 20 == pytest.approx(1.0, abs=0.1)


def test_a_seed_decides_it_and_torchs_random_state_stays() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)

    first, second = make(drawn(1000)), make(drawn(1000))

    assert torch.equal(torch.rand(3), expected)
    assert float(first()) == float(second())


def test_a_learned_weight_must_know_what_is_trained() -> None:
    weight = PenaltyWeight(fixed=None, cap=1.0, power=1.5, anneal_steps=0, seed=7)

    with pytest.raises(RuntimeError, match="attach"):
        weight()
