"""Expert generators: what is folded into an expert, and that batching changes none."""

from __future__ import annotations

import pytest
import torch

from editing_core.experts.generator import (
    AlignedGenerator,
    CrossAttention,
    EditBatch,
    FreeGenerator,
)
from editing_core.experts.slots import standardise

HIDDEN = 16


def rows(seed: int, count: int) -> torch.Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed))


def batch_of(*lengths: tuple[int, int]) -> EditBatch:
    """Edits with so many `(signal rows, slots)`."""
    return EditBatch.collate(
        [rows(10 + i, signal) for i, (signal, _) in enumerate(lengths)],
        [rows(20 + i, slots) for i, (_, slots) in enumerate(lengths)],
        [rows(30 + i, slots) for i, (_, slots) in enumerate(lengths)],
    )


@pytest.fixture
def aligned() -> AlignedGenerator:
    """With every parameter random, so that no part of it is silently zero."""
    torch.manual_seed(0)
    generator = AlignedGenerator(HIDDEN, heads=4)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return generator


def test_an_aligned_expert_has_one_slot_per_target_token(aligned: AlignedGenerator) -> None:
    experts = aligned(batch_of((7, 3), (4, 5)))

    assert [tuple(expert.down.shape) for expert in experts] == [(3, HIDDEN), (5, HIDDEN)]
    assert [tuple(expert.bias.shape) for expert in experts] == [(3,), (5,)]


def test_the_norm_and_the_null_slot_are_folded_into_the_expert(aligned: AlignedGenerator) -> None:
    """`LN(h) . u - null`, with u as its definition says, equals what the expert computes."""
    batch = batch_of((7, 3))
    query = rows(40, 2)

    expert = aligned(batch)[0]

    seen = aligned.norm(batch.predicting)
    u = aligned.look(seen) + aligned.look_mlp(seen)
    u = (u + aligned.look_around(seen, batch.signal, batch.signal_mask)) / HIDDEN**0.5
    expected = aligned.norm(query) @ u[0].T - aligned.null
    torch.testing.assert_close(standardise(query) @ expert.down.T + expert.bias, expected)


@pytest.mark.parametrize("kind", ["aligned", "free"])
def test_neighbours_in_a_batch_change_no_expert(kind: str, aligned: AlignedGenerator) -> None:
    torch.manual_seed(0)
    generator = aligned if kind == "aligned" else FreeGenerator(HIDDEN, width=16, heads=4)

    alone = generator(batch_of((7, 3)))[0]
    beside = generator(batch_of((7, 3), (12, 6)))[0]

    torch.testing.assert_close(alone.down, beside.down)
    torch.testing.assert_close(alone.up, beside.up)


def test_a_free_expert_has_the_rank_and_folds_its_norm() -> None:
    torch.manual_seed(0)
    generator = FreeGenerator(HIDDEN, rank=4, width=16, heads=4)
    with torch.no_grad():
        generator.norm.weight.add_(0.3 * torch.randn(HIDDEN))
        generator.norm.bias.add_(0.3 * torch.randn(HIDDEN))
    batch, query = batch_of((7, 3)), rows(40, 2)

    expert = generator(batch)[0]

    down = generator.scale * generator.down_attention(
        generator.down_queries[None], batch.signal, batch.signal_mask
    )
    assert tuple(expert.up.shape) == (4, HIDDEN)
    torch.testing.assert_close(
        standardise(query) @ expert.down.T + expert.bias, generator.norm(query) @ down[0].T
    )


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiples of 5 heads"):
        CrossAttention(16, 16, width=16, out_width=16, heads=5)
