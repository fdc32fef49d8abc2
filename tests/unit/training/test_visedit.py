"""What VisEdit's adapter and mapper are trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.liveedit import PrefixBank
from editing_core.training.scenes import Stage
from editing_core.training.visedit import (
    OTHER_PICTURE,
    InfluenceMaps,
    VisEditTask,
    measure_influence,
)


@pytest.fixture(scope="module")
def frozen(tiny_model: EditableModel) -> FrozenDecoder:
    backbone = tiny_model.backbone
    return FrozenDecoder(backbone.decoder, backbone.output_head, layer=1, storage=torch.float32)


@pytest.fixture(scope="module")
def bank(tiny_model: EditableModel, frozen: FrozenDecoder) -> PrefixBank:
    stage = Stage(tiny_model.backbone, frozen, all_blocks=True)
    return PrefixBank.prepare(stage, range(6), split="train", questions=3)


@pytest.fixture(scope="module")
def maps(tiny_model: EditableModel, frozen: FrozenDecoder, bank: PrefixBank) -> InfluenceMaps:
    return measure_influence(tiny_model.backbone, frozen, bank)


def task_of(
    model: EditableModel,
    frozen: FrozenDecoder,
    bank: PrefixBank,
    maps: InfluenceMaps | None = None,
    *,
    locality: float = 1.0,
) -> VisEditTask:
    torch.manual_seed(0)
    config = VisEditConfig(model.backbone.hidden_size, edit_layer=1, width=16, heads=4, patches=3)
    objective = LiveEditObjective(locality_weight=locality)
    given: dict[str, Any] = {"seed": 7, "batch": 5, "maps": maps}
    return VisEditTask(VisEdit(config), model.backbone, frozen, bank, objective, **given)


def test_a_step_is_a_function_of_its_number(
    tiny_model: EditableModel, frozen: FrozenDecoder, bank: PrefixBank, maps: InfluenceMaps
) -> None:
    first, second, other = (
        float(task_of(tiny_model, frozen, bank, maps).loss(step).total.detach())
        for step in (3, 3, 4)
    )
    assert first == second != other


def test_the_forward_that_is_trained_is_the_one_that_is_served(
    tiny_model: EditableModel, frozen: FrozenDecoder, bank: PrefixBank
) -> None:
    """With a residual of nothing, whole rows give the base model's own answers."""
    batch = task_of(tiny_model, frozen, bank).draw(np.random.default_rng(1))
    logits = batch.edited_logits(lambda states, steps: torch.zeros_like(states))
    counted = batch.targets != -100
    torch.testing.assert_close(logits[counted], batch.base_logits[counted], atol=1e-4, rtol=1e-4)


def test_rows_out_of_scope_show_another_subject(
    tiny_model: EditableModel, frozen: FrozenDecoder, bank: PrefixBank
) -> None:
    probes, batch = task_of(tiny_model, frozen, bank).compose(np.random.default_rng(1))
    edits = [p for p in probes if p.role == "edit"]
    others = [p for p in probes if p.role == OTHER_PICTURE]

    assert others
    for probe in others:
        assert probe.asked.picture is not edits[probe.edit].asked.picture
        assert probe.answer is not None
    assert batch.roles == tuple(p.role for p in probes)

    quiet = task_of(tiny_model, frozen, bank, locality=0.0).compose(np.random.default_rng(1))[0]
    assert not [p for p in quiet if p.role == OTHER_PICTURE]


def test_each_map_is_the_influence_on_the_very_picture_that_is_seen(
    tiny_model: EditableModel, bank: PrefixBank, maps: InfluenceMaps
) -> None:
    patches = tiny_model.backbone.num_image_tokens
    assert len(maps) == 2 * len(bank.subjects)
    for items in bank.subjects:
        first, second = maps[items[0].edit], maps[items[0].view]
        assert first.shape == (patches,)
        assert float(first.sum()) == pytest.approx(1.0, abs=1e-5)
        assert not torch.allclose(first, second)


def test_the_mapper_learns_from_its_own_loss(
    tiny_model: EditableModel, frozen: FrozenDecoder, bank: PrefixBank, maps: InfluenceMaps
) -> None:
    with_maps, without = (task_of(tiny_model, frozen, bank, given) for given in (maps, None))
    terms = with_maps.loss(2).terms
    assert float(terms["mapper"].detach()) > float(without.loss(2).terms["mapper"].detach())
    assert isinstance(with_maps.editor, VisEdit)
    for gradient in torch.autograd.grad(
        terms["mapper"], list(with_maps.editor.module.mapper.image_map.parameters())
    ):
        assert bool(gradient.any())
