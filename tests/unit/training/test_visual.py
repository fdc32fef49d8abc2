"""VisEdit on any backbone: the objective's terms, and the mapper's own, measured on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editing_core.attribution.influence import Perturbation, influence
from editing_core.backbones.batch import PromptRow
from editing_core.backbones.watching import watching
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.objectives.base import IN_SCOPE
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.training.sources import DatasetEdits, DrawnEdits, dataset_edits
from editing_core.training.visual import VisualTask, measure
from tests.support.tiny_model import tiny_image
from tests.unit.training.conftest import GetBackbone

FAMILIES = ("qwen2_5_vl", "llava_next", "paligemma", "blip-2")
LAYER = 2


@pytest.fixture(scope="module")
def source(records: Path) -> DatasetEdits:
    return dataset_edits("vlkeb", records, hold_out=0)[0]


def task_of(backbone: Any, source: Any, *, locality: float = 1.0) -> VisualTask:
    torch.manual_seed(0)
    editor = VisEdit(VisEditConfig(backbone.hidden_size, LAYER, width=16, heads=4, patches=3))
    objective = LiveEditObjective(locality_weight=locality)
    given: dict[str, Any] = {"seed": 7, "batch": 3}
    return VisualTask(editor, backbone, source, objective, **given)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_step_trains_adapter_and_mapper(
    backbone_of: GetBackbone, source: DatasetEdits, family: str
) -> None:
    task = task_of(backbone_of(family), source)

    terms = task.loss(0)
    terms.total.backward()  # type: ignore[no-untyped-call]

    assert {"edit", "locality", "mapper"} <= set(terms.terms)
    for name, parameter in task.module.named_parameters():
        if not name.endswith("key.bias"):  # a constant added to every key changes no attention
            assert parameter.grad is not None, name
            assert bool((parameter.grad != 0).any()), name
    again = task_of(backbone_of(family), source).loss(0)
    assert torch.equal(again.total, terms.total)


def test_rows_out_of_scope_show_another_picture(
    backbone_of: GetBackbone, source: DatasetEdits
) -> None:
    task = task_of(backbone_of("qwen2_5_vl"), source)
    asked, _, batch = task.compose(np.random.default_rng(1))

    assert len([r for r in batch.roles if r in IN_SCOPE]) == 6  # itself, and once more
    others = [each.probe for each in asked if each.probe.role not in IN_SCOPE]
    assert {probe.role for probe in others} == {"image_locality"}
    drawn = task_of(backbone_of("qwen2_5_vl"), DrawnEdits("train", 4))
    assert "look_alike" in drawn.compose(np.random.default_rng(1))[2].roles
    quiet = task_of(backbone_of("qwen2_5_vl"), source, locality=0.0).compose(
        np.random.default_rng(1)
    )
    assert set(quiet[2].roles) <= set(IN_SCOPE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_influence_is_that_of_the_very_patches(backbone_of: GetBackbone, family: str) -> None:
    """Against the whole map, with the same noise, at the same modules."""
    backbone = backbone_of(family)
    row = PromptRow("Is it blue?", tiny_image(1, height=60), target="the blue")
    found = measure(backbone, row, LAYER, np.random.default_rng(3))

    batch = backbone.prepare([PromptRow(row.prompt, row.image)])
    with torch.no_grad(), watching(backbone.attentions[LAYER + 1 :]) as calls:
        backbone.last_states(batch)
    features = batch.rows[0].features
    assert features is not None
    picture = (features.pictures or (backbone.usual_picture,))[0]
    rows = batch.pictures[0]
    columns = rows if isinstance(rows, list) else range(rows.start, rows.stop)
    rng = np.random.default_rng(3)
    grid = picture.grid or (1, picture.num_tokens)
    rng.permutation(grid[0] * grid[1])
    whole = influence(
        list(calls.values()),
        first_patch=columns[picture.grid_start],
        grid=grid,
        noise=Perturbation(draws=1, radius=0, seed=int(rng.integers(2**31))),
    ).flatten()
    numbers = [patch - picture.grid_start for patch in found.patches]
    expected = whole[numbers] / whole[numbers].sum()
    torch.testing.assert_close(found.shares, expected, atol=1e-4, rtol=1e-3)
    assert found.image.shape == (len(columns), backbone.hidden_size)
