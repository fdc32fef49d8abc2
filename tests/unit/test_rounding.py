"""Experts beyond float16 keep its digits; all others are float16, as they always were."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from editing_core.experts.rounding import joined, rounded, split

LARGEST = torch.finfo(torch.float16).max
EDGE = 65_520.0  # from here on, float16 rounds up to infinity


@pytest.mark.parametrize("largest", [1.0, LARGEST, EDGE - 1])
def test_what_float16_can_hold_is_float16(largest: float) -> None:
    tensor = torch.tensor([largest, -1 / 3])

    assert rounded(tensor).dtype == torch.float16
    assert torch.equal(rounded(tensor), tensor.half())


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8),
    st.floats(EDGE, 2.0**126, width=32),
    st.sampled_from([1, -1]),
)
def test_what_lies_beyond_keeps_as_many_digits(
    rest: list[float], largest: float, sign: int
) -> None:
    tensor = torch.tensor([sign * largest, *(largest * number for number in rest)])

    found = rounded(tensor)

    assert found.dtype == torch.float32
    assert torch.equal(rounded(found), found)
    assert torch.equal(joined(*split(found)), found)
    error = (found.double() - tensor.double()).abs()
    # Half of a unit of the last place, and half of float16's least step times the power of two.
    assert bool((error <= tensor.double().abs() / 2**11 + 2.0**-24 * largest / 2**14).all())


@pytest.mark.parametrize(("largest", "exponent"), [(70_000.0, 1), (131_000.0, 1), (131_039.9, 1),
                                                   (131_040.0, 2), (2.0**40, 25)])  # fmt: skip
def test_the_power_of_two_is_the_least_that_does(largest: float, exponent: int) -> None:
    assert split(rounded(torch.tensor([1.0, -largest])))[1] == exponent


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_no_number_stays_none(value: float) -> None:
    assert not bool(rounded(torch.tensor([1.0, 70_000.0, value])).isfinite().all())


def test_what_nobody_rounded_is_not_split() -> None:
    for tensor in (torch.tensor([70_001.0]), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="not rounded"):
            split(tensor)
