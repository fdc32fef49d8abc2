"""Noise on patches, seen by attention whose output is known: only what it reads counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from editing_core.attribution.influence import Perturbation, influence
from editing_core.backbones.watching import ModuleCall, watching
from editing_core.errors import GenerationCancelled

FIRST, GRID = 2, (2, 3)
COLUMNS, HIDDEN = 10, 8


class Reads(nn.Module):
    """Stands for an attention module: the last row becomes `view` of all rows."""

    def __init__(self, view: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._view = view
        self.copies: list[int] = []

    def forward(self, hidden_states: Tensor, *, past_key_values: object = None) -> tuple[Tensor]:
        assert past_key_values is None
        self.copies.append(len(hidden_states))
        output = torch.zeros_like(hidden_states)
        output[:, -1] = self._view(hidden_states)
        return (output,)


def call_of(view: Callable[[Tensor], Tensor], *, scale: float = 1.0) -> ModuleCall:
    module = Reads(view)
    inputs = scale * torch.randn(1, COLUMNS, HIDDEN, generator=torch.Generator().manual_seed(3))
    with watching([module]) as calls:
        module(hidden_states=inputs)
    return calls[0]


def mean_of_picture(states: Tensor) -> Tensor:
    return states[:, FIRST : FIRST + 6].mean(dim=1)


def test_only_the_patch_that_attention_reads_counts() -> None:
    call = call_of(lambda states: states[:, FIRST + 4])

    found = influence([call], first_patch=FIRST, grid=GRID, noise=Perturbation(radius=0))

    assert found.shape == GRID
    assert found.dtype == torch.float32
    assert found[1, 1] > 0.05
    found[1, 1] = 0
    assert torch.allclose(found, torch.zeros(GRID), atol=1e-9)


def test_a_window_holds_its_neighbours_and_is_cut_off_at_the_edge() -> None:
    call = call_of(lambda states: states[:, FIRST + 2])  # top right

    found = influence([call], first_patch=FIRST, grid=GRID, noise=Perturbation(radius=1))

    assert ((found > 0.05) == torch.tensor([[False, True, True], [False, True, True]])).all()


def test_text_and_other_tokens_are_left_as_they_are() -> None:
    call = call_of(lambda states: states[:, :FIRST].mean(dim=1) + states[:, FIRST + 6 :].sum(1))

    found = influence([call], first_patch=FIRST, grid=GRID)

    assert torch.allclose(found, torch.zeros(GRID), atol=1e-9)


def test_a_seed_decides_and_scale_does_not_matter() -> None:
    noise = Perturbation(draws=3, radius=0)
    found = [
        influence([call_of(mean_of_picture, scale=scale)], first_patch=FIRST, grid=GRID, noise=n)
        for scale, n in ((1, noise), (1, noise), (50, noise), (1, Perturbation(draws=3, seed=1)))
    ]

    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], found[2], atol=1e-5)
    assert not torch.allclose(found[0], found[3], atol=1e-5)


def test_chunks_change_nothing_but_memory() -> None:
    whole, parts = call_of(mean_of_picture), call_of(mean_of_picture)
    two_copies = 2 * parts.inputs.nbytes

    at_once = influence([whole], first_patch=FIRST, grid=GRID)
    in_parts = influence([parts], first_patch=FIRST, grid=GRID, copies_bytes=two_copies)

    assert torch.allclose(at_once, in_parts, atol=1e-7)
    assert isinstance(whole.module, Reads)
    assert isinstance(parts.module, Reads)
    assert max(whole.module.copies) == 6
    assert max(parts.module.copies) == 2


def test_modules_count_alike() -> None:
    noise = Perturbation(draws=400, radius=0)
    one, other = call_of(lambda s: s[:, FIRST]), call_of(lambda s: s[:, FIRST + 5])

    found = influence([one, other], first_patch=FIRST, grid=GRID, noise=noise)
    alone = influence([one], first_patch=FIRST, grid=GRID, noise=noise)

    assert float(found[0, 0]) == pytest.approx(float(alone[0, 0]) / 2, rel=1e-5)
    assert float(found[1, 2]) > 0


def test_more_noise_has_more_influence() -> None:
    weak, strong = (
        influence(
            [call_of(mean_of_picture)],
            first_patch=FIRST,
            grid=GRID,
            noise=Perturbation(sigma=sigma, draws=50, radius=0),
        )
        for sigma in (0.1, 2.0)
    )

    assert (strong > weak).all()


@pytest.mark.parametrize(
    ("grid", "radius"), [((24, 24), 1), ((8, 8), 0), ((4, 4), 0), ((1, 32), 1), ((40, 20), 2)]
)
def test_a_window_is_about_an_eighth_of_the_picture(grid: tuple[int, int], radius: int) -> None:
    assert Perturbation().radius_on(grid) == radius
    assert Perturbation(radius=3).radius_on(grid) == 3


def test_it_can_be_stopped() -> None:
    answers = iter([False, False, True])
    call = call_of(mean_of_picture)

    with pytest.raises(GenerationCancelled):
        influence(
            [call],
            first_patch=FIRST,
            grid=GRID,
            is_cancelled=lambda: next(answers),
        )
    assert isinstance(call.module, Reads)
    assert call.module.copies == [1, 1, 6, 6]  # watched, clean, two draws


def test_hooks_are_gone_after_an_error() -> None:
    module = Reads(mean_of_picture)
    with pytest.raises(RuntimeError, match="broke"), watching([module]):
        raise RuntimeError("it broke")

    assert not module._forward_hooks
    assert np.array_equal(module.copies, [])
