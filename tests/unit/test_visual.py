"""Visual experts: what is kept of an edit, and what it adds to the picture of a query."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from editing_core.experts.visual import (
    InfluenceMapper,
    ShownPicture,
    VisualEditAdapter,
    VisualExpert,
    VisualIntervention,
    read_expert,
)
from editing_core.states import EditStates
from editing_core.types import TokenSpans

HIDDEN, PATCHES = 16, 6


@pytest.fixture(scope="module")
def adapter() -> VisualEditAdapter:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return VisualEditAdapter(HIDDEN, width=24, heads=4).requires_grad_(False)


def states_of(seed: int, *, slots: int = 3) -> EditStates:
    random = torch.Generator().manual_seed(seed)
    return EditStates(
        hidden=torch.randn(12 + slots, HIDDEN, generator=random),
        spans=TokenSpans(vision=(1, 7), prompt=(7, 10), last_prompt=11, target=(12, 12 + slots)),
        target_ids=torch.arange(slots),
        target_embeddings=torch.randn(slots, HIDDEN, generator=random),
    )


def picture(seed: int = 9) -> Tensor:
    return torch.randn(1, PATCHES, HIDDEN, generator=torch.Generator().manual_seed(seed))


def test_an_expert_keeps_picture_words_and_answer(adapter: VisualEditAdapter) -> None:
    expert = adapter.expert(states_of(1))

    assert expert.source.shape == (6 + 3 + 3, HIDDEN)
    assert expert.slots == 3
    assert torch.equal(expert.anchor, states_of(1).hidden[11])


def test_of_the_picture_it_may_keep_what_matters_most(adapter: VisualEditAdapter) -> None:
    states = states_of(1)
    whole, pruned = adapter.expert(states), adapter.expert(states, patches=2)

    scores = adapter.mapper(states.image[None], states.predicting[:1])[0, :, 0]
    best = sorted(scores.topk(2).indices.tolist())
    assert torch.equal(pruned.source, whole.source[[*best, *range(6, 12)]])


def test_the_mapper_is_the_mean_of_scaled_products_of_heads() -> None:
    mapper = InfluenceMapper(HIDDEN, heads=4)
    image, anchors = picture(), torch.randn(2, HIDDEN)
    rows, texts = mapper.image_norm(image), mapper.anchor_norm(anchors)
    rows, texts = rows + mapper.image_map(rows), texts + mapper.anchor_map(texts)
    by_head = torch.einsum(
        "rphd,ehd->rphe", rows.unflatten(-1, (4, -1)), texts.unflatten(-1, (4, -1))
    )

    expected = by_head.mean(2) / (HIDDEN / 4) ** 0.5
    torch.testing.assert_close(mapper(image, anchors), expected)


def test_what_selects_nothing_gets_exactly_nothing(adapter: VisualEditAdapter) -> None:
    experts = [adapter.expert(states_of(seed)) for seed in (1, 2)]
    images = picture().expand(3, -1, -1)
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.4, 0.6]])

    added = adapter(images, experts, weights)

    assert torch.equal(added[1], torch.zeros(PATCHES, HIDDEN))
    assert bool((added[0] != 0).any())
    assert bool(torch.isfinite(added).all())


def test_an_edit_of_no_weight_is_not_looked_at(adapter: VisualEditAdapter) -> None:
    own, other = (adapter.expert(states_of(seed)) for seed in (1, 2))

    alone = adapter(picture(), [own], torch.tensor([[0.7]]))
    beside = adapter(picture(), [own, other], torch.tensor([[0.7, 0.0]]))

    torch.testing.assert_close(beside, alone)


def test_rows_of_the_picture_take_turns_with_the_answer(adapter: VisualEditAdapter) -> None:
    """With a bias that no content outweighs, row j sees answer row j mod n and nothing else."""
    strict = VisualEditAdapter(HIDDEN, width=24, heads=4).requires_grad_(False)
    strict.load_state_dict(adapter.state_dict())
    strict.turn_bias.fill_(1e4)
    expert = strict.expert(states_of(1, slots=4))
    changed = expert.source.clone()
    changed[-3] += 1.0  # the second of four answer rows

    before, after = (
        strict(picture(), [replace(expert, source=s)], torch.ones(1, 1))[0]
        for s in (expert.source, changed)
    )

    moved = [j for j in range(PATCHES) if not torch.allclose(before[j], after[j])]
    assert moved == [1, 5]


def test_a_payload_is_read_back(adapter: VisualEditAdapter) -> None:
    expert = adapter.expert(states_of(1))
    again = read_expert(expert.payload(), expert.metadata())

    assert isinstance(again, VisualExpert)
    assert again.slots == expert.slots
    assert torch.equal(again.source, expert.source.half().float())
    one = VisualIntervention(adapter, [(again, 1.0)]).residual(picture()[0], torch.zeros(PATCHES))
    torch.testing.assert_close(one, adapter(picture(), [again], torch.ones(1, 1))[0])


def test_a_shown_picture_stands_in_for_the_querys_own(adapter: VisualEditAdapter) -> None:
    rows = picture(4)[0]
    whole = ShownPicture.of(rows, rank=PATCHES)
    torch.testing.assert_close(whole.rows(PATCHES), rows)
    again = read_expert(whole.payload(), adapter.expert(states_of(1)).metadata())
    assert isinstance(again, ShownPicture)

    steps, query = torch.zeros(PATCHES), picture()[0]
    alone = VisualIntervention(adapter, [(whole, 1.0)]).residual(query, steps)
    torch.testing.assert_close(query + alone, rows)

    looked_at = adapter.expert(states_of(1))
    both = VisualIntervention(adapter, [(whole, 0.25), (looked_at, 0.75)]).residual(query, steps)
    adapted = VisualIntervention(adapter, [(looked_at, 0.75)]).residual(query, steps)
    torch.testing.assert_close(both, adapted + 0.25 * (rows - query))


def test_a_shown_picture_of_low_rank_is_the_nearest_one() -> None:
    thin = torch.randn(PATCHES, 2) @ torch.randn(2, HIDDEN)
    torch.testing.assert_close(ShownPicture.of(thin, rank=2).rows(PATCHES), thin)
    assert ShownPicture.of(thin, rank=2).rows(2 * PATCHES).shape == (2 * PATCHES, HIDDEN)


@pytest.mark.parametrize(
    ("payload", "metadata"),
    [
        ({"source": torch.zeros(4, 8)}, {"kind": "visual", "slots": "2"}),
        ({"source": torch.zeros(4, 8), "anchor": torch.zeros(8)}, {"kind": "aligned"}),
        ({"source": torch.zeros(4, 8), "anchor": torch.zeros(8)}, {"kind": "visual", "slots": "5"}),
        ({"source": torch.zeros(4, 8), "anchor": torch.zeros(8)}, {"kind": "visual", "slots": "x"}),
        ({"source": torch.zeros(4, 8), "anchor": torch.zeros(7)}, {"kind": "visual", "slots": "2"}),
        ({"place": torch.zeros(4, 2), "write": torch.zeros(3, 8)}, {"kind": "visual"}),
        ({"place": torch.zeros(4, 2), "write": torch.zeros(2, 8)}, {"kind": "aligned"}),
    ],
)
def test_what_is_no_visual_expert_is_refused(
    payload: dict[str, Tensor], metadata: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"visual expert|anchor"):
        read_expert(payload, metadata)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of 5"):
        VisualEditAdapter(HIDDEN, width=24, heads=5)
