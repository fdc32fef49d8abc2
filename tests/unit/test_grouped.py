"""One product for many rows adds what each row's own experts add to it alone."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from editing_core.decode_taps import DecodeTaps
from editing_core.experts.free import FreeExpert, FreeIntervention
from editing_core.experts.slots import AlignedIntervention, SlotExpert
from editing_core.states import Intervention
from editing_core.types import Positions

HIDDEN, LAYER = 24, 3
CPU = torch.device("cpu")


def expert(seed: int, *, slots: int, sets: int = 1, norm: str = "standard") -> SlotExpert:
    random = torch.Generator().manual_seed(seed)
    return SlotExpert(
        down=torch.randn(sets * slots, HIDDEN, generator=random),
        up=torch.randn(slots, HIDDEN, generator=random),
        bias=torch.randn(sets * slots, generator=random),
        gamma=torch.rand((), generator=random),
        norm=norm,
        null=-float(seed % 3),
    )


def aligned(*experts: SlotExpert) -> AlignedIntervention:
    weights = [1.0 / (i + 1) for i in range(len(experts))]
    norms = {"doubled": lambda states, steps: states * (steps + 1).unsqueeze(-1)}
    return AlignedIntervention(list(zip(experts, weights, strict=True)), norms=norms)


def free(seed: int, rank: int) -> FreeIntervention:
    random = torch.Generator().manual_seed(seed)
    down, up = torch.randn(2, rank, HIDDEN, generator=random)
    bias = torch.randn(rank, generator=random)
    return FreeIntervention([(FreeExpert(down=down, up=up, bias=bias), 0.7)])


class Shift:
    """An intervention of a kind that nobody has grouped."""

    def __init__(self, positions: Positions = "all") -> None:
        self.positions = positions

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        return states * steps.unsqueeze(-1)


ACTING: dict[int, tuple[Intervention, ...]] = {
    0: (aligned(expert(0, slots=3)),),
    1: (aligned(expert(1, slots=7, sets=2), expert(2, slots=1, norm="doubled")),),
    2: (),
    3: (free(0, 4), Shift()),
    4: (aligned(expert(3, slots=2, norm="doubled")), free(1, 9), free(2, 2)),
}


def running(rows: dict[int, int]) -> DecodeTaps:
    """The rows of `ACTING`, each at its place."""
    taps = DecodeTaps(device=CPU)
    for row, place in rows.items():
        taps.add(place, {LAYER: ACTING[row]})
    return taps


def alone(row: int, states: Tensor, step: int) -> Tensor:
    total = states.clone()
    for each in ACTING[row]:
        total += each.residual(states[None], torch.tensor([step]))[0]
    return total


def assert_adds(taps: DecodeTaps, rows: list[int]) -> None:
    """Place i of the batch is a row of `ACTING`, `rows[i]`."""
    states = torch.randn(len(rows), HIDDEN, generator=torch.Generator().manual_seed(9))
    steps = [1 + place % 4 for place in range(len(rows))]
    found = taps.at(steps)
    changed = states if found is None else found[LAYER](states[:, None])
    assert changed is not None
    for place, (row, line) in enumerate(zip(rows, changed.view_as(states), strict=True)):
        expected = alone(row, states[place], steps[place])
        torch.testing.assert_close(line, expected, rtol=1e-5, atol=1e-5)
        if not ACTING[row]:
            assert torch.equal(line, states[place])


def test_the_sum_is_that_of_every_row_alone() -> None:
    assert_adds(running({row: row for row in ACTING}), list(ACTING))


def test_rows_in_any_order_that_come_and_go_keep_their_own() -> None:
    """A buffer's last line moves into the gap; wide lines leave no trace behind them."""
    chance = random.Random(3)
    taps, rows = DecodeTaps(device=CPU), list[int]()
    for _ in range(60):
        if rows and chance.random() < 0.5:
            kept = sorted(chance.sample(range(len(rows)), chance.randrange(len(rows))))
            taps.keep(kept)
            rows = [rows[place] for place in kept]
        else:
            new = [chance.randrange(5) for _ in range(chance.randrange(1, 4))]
            others = DecodeTaps(device=CPU)
            for place, row in enumerate(new):
                others.add(place, {LAYER: ACTING[row]})
            taps.join(others, len(rows))
            rows += new
        assert_adds(taps, rows)


def test_without_experts_there_is_no_tap() -> None:
    taps = running({0: 0, 2: 1})
    assert taps.at([2, 2]) is not None
    taps.keep([1])
    assert taps.at([3]) is None


@pytest.mark.parametrize("positions", ["all", "from_last_prompt_token"])
def test_those_of_other_positions_can_be_left_out(positions: Positions) -> None:
    taps = running({4: 0})
    states, steps = torch.randn(1, HIDDEN), torch.tensor([1])
    found = taps.added(LAYER, states, steps, positions=positions)
    own = [each for each in ACTING[4] if each.positions == positions]
    expected = states + sum(each.residual(states, steps) for each in own)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_changes_a_picture_takes_no_part_in_decoding() -> None:
    taps = DecodeTaps(device=CPU)
    taps.add(0, {LAYER: (Shift("vision"),)})
    assert taps.at([2]) is None
