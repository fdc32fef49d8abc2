"""One product for many rows adds what each row's own experts add to it alone."""

from __future__ import annotations

import torch
from torch import Tensor

from editing_core.experts.free import FreeExpert, FreeIntervention
from editing_core.experts.grouped import grouped
from editing_core.experts.slots import AlignedIntervention, SlotExpert
from editing_core.states import Intervention

HIDDEN = 24


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


ACTING: list[tuple[int, Intervention]] = [
    (0, aligned(expert(0, slots=3))),
    (1, aligned(expert(1, slots=7, sets=2), expert(2, slots=1, norm="doubled"))),
    (3, free(0, 4)),
    (4, aligned(expert(3, slots=2, norm="doubled"))),
    (4, free(1, 9)),
    (4, free(2, 2)),
]


def added(groups: list[tuple[list[int], Intervention]], states: Tensor, steps: Tensor) -> Tensor:
    total = torch.zeros_like(states)
    for rows, together in groups:
        total[rows] += together.residual(states[rows], steps[rows])
    return total


def test_the_sum_is_that_of_every_row_alone() -> None:
    states = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(9))
    steps = torch.tensor([2, 1, 5, 3, 9])
    groups = grouped(ACTING)
    assert sorted(sorted(rows) for rows, _ in groups) == [[0, 1, 4], [3, 4], [4]]
    one_by_one = added([([row], each) for row, each in ACTING], states, steps)
    torch.testing.assert_close(added(groups, states, steps), one_by_one, rtol=1e-5, atol=1e-5)
    assert not added(groups, states, steps)[2].any()


def test_before_the_last_prompt_token_aligned_experts_add_nothing() -> None:
    groups = grouped([(0, ACTING[0][1]), (1, ACTING[1][1])])
    states = torch.randn(2, HIDDEN)
    assert not added(groups, states, torch.tensor([0, -3])).any()


def test_what_acts_on_one_row_stays_as_it_is() -> None:
    for one in (ACTING[0], ACTING[2]):
        assert grouped([one]) == [([one[0]], one[1])]
