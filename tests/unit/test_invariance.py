"""Closed forms against finite differences in the scalar, and MMD against its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from editing_core.objectives.invariance import (
    kl_base_slope,
    kl_edited_slope,
    mmd_slope,
    nll_slope,
    total_variation,
)
from editing_core.objectives.losses import (
    IGNORED,
    kl_base_to_edited,
    kl_edited_to_base,
    median_bandwidths,
    mmd,
    sequence_nll,
)

TARGETS = torch.tensor([[1, 2, 3], [4, 0, IGNORED]])
FACTORS = (0.5, 1.0, 2.0, 4.0)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


EDITED, BASE = 2.0 * drawn(2, 3, 7, seed=0), 2.0 * drawn(2, 3, 7, seed=1)
FIRST, SECOND = drawn(5, 4, seed=2), drawn(8, 4, seed=3) + 0.5


def finite_difference(risk: Callable[[float], Tensor]) -> Tensor:
    step = 1e-5
    return (risk(1.0 + step) - risk(1.0 - step)) / (2 * step)


def test_the_slope_of_cross_entropy() -> None:
    expected = finite_difference(lambda s: sequence_nll(s * EDITED, TARGETS))

    torch.testing.assert_close(nll_slope(EDITED, TARGETS), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("divergence", "slope"),
    [(kl_edited_to_base, kl_edited_slope), (kl_base_to_edited, kl_base_slope)],
)
def test_the_slope_of_a_divergence(
    divergence: Callable[..., Tensor], slope: Callable[..., Tensor]
) -> None:
    """The base model's own features carry no classifier: it is the edited one that is trained."""
    expected = finite_difference(lambda s: divergence(s * EDITED, BASE, TARGETS))

    torch.testing.assert_close(slope(EDITED, BASE, TARGETS), expected, atol=1e-8, rtol=1e-8)


def test_the_slope_of_mmd() -> None:
    bandwidths = median_bandwidths(torch.cat([FIRST, SECOND]), FACTORS)

    expected = finite_difference(lambda s: mmd(s * FIRST, s * SECOND, bandwidths))

    torch.testing.assert_close(mmd_slope(FIRST, SECOND, bandwidths), expected, atol=1e-8, rtol=1e-8)
    # On logits alone the scalar would not reach features, and R_gen would leave the penalty.
    assert abs(float(expected)) > 1e-3


def test_slopes_carry_gradients_of_what_they_are_made_of() -> None:
    """The penalty trains: autograd through a slope is the second derivative it claims to be."""
    bandwidths = median_bandwidths(torch.cat([FIRST, SECOND]), FACTORS)
    slopes: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (lambda z: nll_slope(z, TARGETS).sum(), EDITED),
        (lambda z: kl_edited_slope(z, BASE, TARGETS).sum(), EDITED),
        (lambda z: kl_base_slope(z, BASE, TARGETS).sum(), EDITED),
        (lambda a: mmd_slope(a, SECOND, bandwidths), FIRST),
    ]
    for slope, point in slopes:
        assert torch.autograd.gradcheck(slope, point.clone().requires_grad_())


def test_divergence_from_edited_to_base_is_that_direction() -> None:
    found = kl_edited_to_base(EDITED, BASE, TARGETS)

    p, q = EDITED[1, :2].softmax(-1), BASE[1, :2].softmax(-1)
    torch.testing.assert_close(found[1], (p * (p / q).log()).sum(-1).mean())
    torch.testing.assert_close(found, kl_base_to_edited(BASE, EDITED, TARGETS))
    torch.testing.assert_close(kl_edited_to_base(BASE, BASE, TARGETS), torch.zeros_like(found))


def test_mmd_is_what_its_definition_says() -> None:
    bandwidths = torch.tensor([0.7, 1.9], dtype=torch.float64)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.stack(
            [(-(a - b).square().sum() / (2 * w * w)).exp() for w in bandwidths]
        ).sum()

    def mean(xs: Tensor, ys: Tensor) -> Tensor:
        return torch.stack([kernel(x, y) for x in xs for y in ys]).mean()

    expected = mean(FIRST, FIRST) + mean(SECOND, SECOND) - 2 * mean(FIRST, SECOND)
    torch.testing.assert_close(mmd(FIRST, SECOND, bandwidths), expected)
    torch.testing.assert_close(mmd(FIRST, FIRST, bandwidths), torch.zeros_like(expected))


def test_mmd_does_not_see_which_rephrase_belongs_to_which_edit() -> None:
    """Why it can stand beside a likelihood of the rephrases, and not in its place."""
    rephrases = FIRST + 0.1 * drawn(5, 4, seed=4)
    bandwidths = median_bandwidths(torch.cat([FIRST, rephrases]), FACTORS)
    order = torch.tensor([3, 0, 4, 1, 2])

    paired, shuffled = (mmd(FIRST, r, bandwidths) for r in (rephrases, rephrases[order]))

    torch.testing.assert_close(shuffled, paired, atol=1e-15, rtol=1e-13)


def test_bandwidths_follow_the_median_distance_and_carry_no_gradient() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)

    bandwidths = median_bandwidths(points, (0.5, 2.0))

    torch.testing.assert_close(bandwidths, torch.tensor([1.0, 4.0]))
    assert not bandwidths.requires_grad
    assert bool((median_bandwidths(torch.zeros(3, 2), FACTORS) > 0).all())


def test_the_penalty_is_the_square_of_the_mean_or_the_mean_of_the_squares() -> None:
    slopes = [torch.tensor(3.0), torch.tensor(-1.0)]

    assert float(total_variation(slopes)) == 4.0
    assert float(total_variation(slopes, "l2")) == 5.0
