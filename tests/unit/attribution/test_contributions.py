"""Contributions against the formula by hand, on a decoder whose head and norm are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from editing_core.attribution.contributions import contributions, recommended_layer
from editing_core.backbones.passes import DecoderPasses

# Attention of LLaVA 1.5 over its 32 blocks, as VisEdit's plot has it; its authors edit layer 18.
LLAVA = [0.002] * 15 + [
    0.003, 0.004, 0.006, 0.012, 0.060, 0.042, 0.047, 0.059, 0.043, 0.073, 0.057, 0.039, 0.053,
    0.270, 0.054, 0.084, 0.066,
]  # fmt: skip


def decoder() -> DecoderPasses:
    """A vocabulary of three, whose logits are twice the states: the norm doubles."""
    head = nn.Identity()
    stand_in: Any = SimpleNamespace(final_norm=lambda states: 2 * states, output_head=head)
    return cast(DecoderPasses, stand_in)


def test_contributions_are_those_of_the_formula() -> None:
    attention = torch.tensor([[0.5, 0.0, 0.0], [-1.0, 0.0, 1.0]])
    mlp = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])

    first, second = contributions(decoder(), attention, mlp, token=0)

    def by_hand(logits: list[float]) -> float:
        probability = math.exp(logits[0]) / sum(map(math.exp, logits))
        return math.copysign(math.sqrt(abs(logits[0]) / 4.0 * probability), logits[0])

    assert (first.layer, second.layer) == (0, 1)
    assert first.attention == pytest.approx(by_hand([1, 0, 0]))
    assert first.mlp == pytest.approx(by_hand([4, 0, 0]))
    assert second.attention == pytest.approx(by_hand([-2, 0, 2]))
    assert second.attention < 0
    assert second.mlp == 0


def test_modules_that_say_nothing_contribute_nothing() -> None:
    (only,) = contributions(decoder(), torch.zeros(1, 3), torch.zeros(1, 3), token=2)

    assert (only.attention, only.mlp) == (0, 0)


@pytest.mark.parametrize(
    ("curve", "lowest", "layer"),
    [
        ([0, 0, 1, 1], 0, 1),
        ([0, 1, 1, 1], 0, 0),
        ([0, 1, 1, 1], 1, 1),
        ([0, 0, 0, 1], 0, 2),
        ([1, 1, 0, 0.1], 0, 2),
        ([0.5, 0.5, 0.5], 0, 0),
        (LLAVA, 0, 18),
    ],
    ids=["step", "at-once", "bounded", "late", "falling", "flat", "llava"],
)
def test_the_layer_right_before_attention_begins_is_recommended(
    curve: list[float], lowest: int, layer: int
) -> None:
    assert recommended_layer(curve, lowest=lowest) == layer
    assert recommended_layer(np.array(curve), lowest=lowest) == layer


@pytest.mark.parametrize("lowest", [-1, 1, 2])
def test_a_layer_needs_a_block_above_it(lowest: int) -> None:
    with pytest.raises(ValueError, match="has a block above it"):
        recommended_layer([0.1, 0.2], lowest=lowest)
