"""Training on any backbone: learns, resumes bit for bit after a kill, and is bound to its model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.editors.liveedit import LiveEdit
from editing_core.errors import AnotherPlan, FingerprintMismatch, TrainingError
from editing_core.objectives.base import IN_SCOPE, Objective
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.registry import EDITORS, OBJECTIVES
from editing_core.training.general import EditorTask
from editing_core.training.general_recipe import GeneralRecipe, new_editor, train_on
from editing_core.training.sources import DatasetEdits, dataset_edits
from editing_core.training.trainer import TrainingPlan, make_optimisers, train
from tests.unit.training.conftest import GetBackbone

FAMILIES = ("qwen2_5_vl", "paligemma", "blip-2", "llava")
STEPS = 5
RECIPE = GeneralRecipe(
    form="aligned",
    shape={"heads": 4},
    batch=2,
    own_targets=0.5,
    objective_settings={"locality_weight": 1.0},
    validations=0,
    plan={"steps": STEPS, "checkpoint_seconds": 0.0, "report_every": 1},
)


@pytest.fixture(scope="module")
def source(records: Path) -> DatasetEdits:
    return dataset_edits("vlkeb", records, hold_out=0)[0]


def task_of(
    backbone: Any, source: DatasetEdits, objective: Objective | None = None, **more: Any
) -> EditorTask:
    torch.manual_seed(0)
    editor = new_editor(
        replace(RECIPE, **more), hidden=backbone.hidden_size, depth=4, fingerprint=""
    )
    given: dict[str, Any] = {"seed": 7, "batch": 2}
    return EditorTask(editor, backbone, source, objective or LiveEditObjective(), **given)


def test_a_draw_is_a_function_of_its_number(backbone_of: GetBackbone, source: DatasetEdits) -> None:
    backbone = backbone_of("qwen2_5_vl")
    first, second, other = (
        float(task_of(backbone, source).loss(number).total.detach()) for number in (3, 3, 4)
    )
    assert first == second != other


def test_a_draw_asks_every_role_with_rivals_mixed_in(
    backbone_of: GetBackbone, source: DatasetEdits
) -> None:
    task = task_of(backbone_of("qwen2_5_vl"), source)
    asked, _, batch = task.compose(np.random.default_rng(0))

    assert set(batch.roles) == {*IN_SCOPE, "image_locality", "text_locality"}
    assert [each.edit for each in asked[:2]] == [0, 1]
    torch.testing.assert_close(batch.weights.sum(1), torch.ones(10))
    quiet = task_of(backbone_of("qwen2_5_vl"), source, LiveEditObjective(locality_weight=0.0))
    assert set(quiet.compose(np.random.default_rng(0))[2].roles) == set(IN_SCOPE)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_trains_the_generator(
    backbone_of: GetBackbone, source: DatasetEdits, name: str
) -> None:
    objective: Objective = OBJECTIVES.resolve(name)()
    task = task_of(backbone_of("qwen2_5_vl"), source, objective)
    objective.attach(list(task.module.parameters()))

    task.loss(0).total.backward()  # type: ignore[no-untyped-call]

    assert any(bool((p.grad != 0).any()) for p in task.module.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["aligned", "paper"])
def test_it_learns_one_batch_by_heart(
    backbone_of: GetBackbone, source: DatasetEdits, family: str, form: Any
) -> None:
    backbone = backbone_of(family)
    shape = {"heads": 4} if form == "aligned" else {"heads": 4, "width": 16}
    task = task_of(backbone, source, LiveEditObjective(locality_weight=0.0), form=form, shape=shape)
    *_, batch = task.compose(np.random.default_rng(0))
    task.editor.start_from(batch.edits)
    optimisers = make_optimisers(task.module, TrainingPlan(steps=1, matrix_rate=0.05, rate=0.05))
    losses = []
    for _ in range(24):
        total = task.loss(0).total
        total.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        losses.append(float(total.detach()))

    # Four units on a random model can do little; a slot for each token can say all of it.
    assert losses[-1] < (0.3 if form == "aligned" else 0.9) * losses[0]


class Killed(Exception):
    """Stands for a kill between two steps."""


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("qwen2_5_vl", "aligned"),
        ("paligemma", "paper"),
        ("blip-2", "adapter"),
        ("llava", "aligned"),
    ],
)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    backbone_of: GetBackbone, source: DatasetEdits, tmp_path: Path, family: str, form: Any
) -> None:
    killed_at = int(np.random.default_rng().integers(1, STEPS))
    shape = {"heads": 4} if form == "aligned" else {"heads": 4, "width": 16}
    recipe = replace(RECIPE, form=form, shape=shape)

    def report(share: float, step: int, figures: Mapping[str, float]) -> None:
        if step == killed_at:
            raise Killed

    def run(folder: str, **more: Any) -> Any:
        given: dict[str, Any] = {"out": tmp_path / folder / "out", "work": tmp_path / folder}
        return train_on(backbone_of(family), recipe, source, **given, **more)

    unbroken = run("unbroken")
    with pytest.raises(Killed):
        run("killed", report=report)
    resumed = run("killed")

    for name, value in unbroken.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), (name, killed_at)
    assert resumed.fingerprint == unbroken.fingerprint


def test_another_plan_is_refused_by_what_differs(
    backbone_of: GetBackbone, source: DatasetEdits, records: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"out": tmp_path / "out", "work": tmp_path}
    backbone = backbone_of("qwen2_5_vl")
    train_on(backbone, RECIPE, source, **given)
    fewer = dataset_edits("vlkeb", records, hold_out=0, limit=5)[0]
    for recipe, edits, difference in (
        (replace(RECIPE, plan={**RECIPE.plan, "seed": 8}), source, "seed is 7 there and 8 here"),
        (replace(RECIPE, layer=1), source, "editor.edit_layer is 2 there and 1 here"),
        (replace(RECIPE, batch=3), source, "batch is 2 there and 3 here"),
        (RECIPE, fewer, "source.edits is 6 there and 5 here"),
    ):
        with pytest.raises(AnotherPlan, match=difference):
            train_on(backbone, recipe, edits, **given)
    with pytest.raises(AnotherPlan, match=r"backbone is sha256:\w+ there"):
        train_on(backbone_of("qwen2_vl"), RECIPE, source, **given)


def test_several_draws_make_one_step(
    backbone_of: GetBackbone, source: DatasetEdits, tmp_path: Path
) -> None:
    """The step is the mean of its draws, and draws are counted through."""
    numbers: list[int] = []
    original = EditorTask.loss

    class Counted(EditorTask):
        def loss(self, number: int) -> Any:
            numbers.append(number)
            return original(self, number)

    backbone = backbone_of("qwen2_5_vl")
    torch.manual_seed(0)
    editor = new_editor(RECIPE, hidden=backbone.hidden_size, depth=4, fingerprint="")
    task = Counted(editor, backbone, source, LiveEditObjective(), seed=7, batch=2)
    train(task, TrainingPlan(steps=2, accumulate=3), tmp_path)

    assert numbers == [0, 1, 2, 3, 4, 5]


def test_a_trained_editor_serves_its_own_backbone_and_no_other(
    tiny_model: EditableModel, backbone_of: GetBackbone, source: DatasetEdits, tmp_path: Path
) -> None:
    train_on(tiny_model.backbone, RECIPE, source, out=tmp_path, work=tmp_path / "work")
    editor = LiveEdit.load(tmp_path / "liveedit.safetensors", tmp_path / "liveedit.json")
    notes = json.loads((tmp_path / "liveedit.json").read_text())["notes"]
    assert notes["source"]["dataset"] == "vlkeb"
    EditableModel(tiny_model.backbone, tiny_model.router, {"liveedit": editor})

    train_on(backbone_of("qwen2_5_vl"), RECIPE, source, out=tmp_path, work=tmp_path / "other")
    other = EDITORS.resolve("liveedit").load(
        tmp_path / "liveedit.safetensors", tmp_path / "liveedit.json"
    )
    with pytest.raises(FingerprintMismatch, match="trained on another backbone, sha256:"):
        EditableModel(tiny_model.backbone, tiny_model.router, {"liveedit": other})


def test_the_shape_follows_the_model() -> None:
    recipe = GeneralRecipe(form="paper", shape={"heads": 8, "width": 0.25})
    made = new_editor(recipe, hidden=4096, depth=32, fingerprint="")
    assert isinstance(made, LiveEdit)
    assert (made.config.width, made.edit_layer) == (1024, 21)
    assert new_editor(recipe, hidden=256, depth=2, fingerprint="").edit_layer == 0
    for wrong in ({"layer": 31}, {"shape": {"heads": 7, "width": 1024}}):
        with pytest.raises(TrainingError):
            new_editor(replace(recipe, **wrong), hidden=4096, depth=32, fingerprint="")
