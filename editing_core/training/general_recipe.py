"""From any frozen backbone and a source of edits to a trained, saved editor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from editing_core.backbones.base import Backbone
from editing_core.editors.liveedit import Form, LiveEdit, LiveEditConfig
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.errors import TrainingError
from editing_core.experts.weights import round_weights
from editing_core.objectives.base import Objective
from editing_core.registry import OBJECTIVES
from editing_core.training.general import EditorTask, can_be_taught
from editing_core.training.processes import OneProcess, Processes
from editing_core.training.sources import EditSource
from editing_core.training.trainer import Report, TrainingPlan, train
from editing_core.training.validation import Validation
from editing_core.training.visual import VisualTask

_DEPTH = 2 / 3


@dataclass(frozen=True, slots=True)
class GeneralRecipe:
    """How an editor is trained on a backbone that nobody prepared for.

    `layer` None is two thirds of the depth. `shape` are the editor's settings; a `width` below 1 is
    a share of the hidden size. `validations` times in a run, `validation_edits` held-out edits are
    asked. `plan` is a `TrainingPlan`'s settings.
    """

    form: Form | Literal["adapter"]
    layer: int | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 8
    own_targets: float = 1.0
    objective: str = "liveedit"
    objective_settings: Mapping[str, Any] = field(default_factory=dict)
    validations: int = 10
    validation_edits: int = 16
    plan: Mapping[str, Any] = field(default_factory=dict)


def new_editor(
    recipe: GeneralRecipe, *, hidden: int, depth: int, fingerprint: str
) -> LiveEdit | VisEdit:
    """An untrained editor for a model of this hidden size and depth.

    Raises `TrainingError` where the recipe's layer or shape does not fit.
    """
    layer = recipe.layer
    if layer is None:
        layer = min(round(_DEPTH * depth), depth - 2)
    # Above the last block there is nothing that could carry an edit to later rows.
    if not 0 <= layer < depth - 1:
        raise TrainingError(
            f"layer {layer} is none to edit at: the model has blocks 0 to {depth - 1}, and some "
            f"must lie above",
            hint="Choose another by --layer; `errata attribute` recommends one.",
        )
    shape = dict(recipe.shape)
    heads = int(shape.get("heads", 8))
    width = shape.get("width")
    if isinstance(width, float):
        shape["width"] = max(1, round(width * hidden / heads)) * heads
    try:
        if recipe.form == "adapter":
            return VisEdit(VisEditConfig(hidden, layer, **shape), backbone_fingerprint=fingerprint)
        config = LiveEditConfig(hidden, layer, recipe.form, **shape)
        return LiveEdit(config, backbone_fingerprint=fingerprint)
    except ValueError as error:
        raise TrainingError(
            f"the recipe's shape does not fit a hidden size of {hidden}: {error}",
            hint="Write a recipe with other heads or another width.",
        ) from error


def new_task(
    editor: LiveEdit | VisEdit,
    backbone: Backbone,
    source: EditSource,
    objective: Objective,
    recipe: GeneralRecipe,
) -> EditorTask:
    """What is trained: the editor's own task."""
    given: dict[str, Any] = {
        "seed": TrainingPlan(**recipe.plan).seed,
        "batch": recipe.batch,
        "own_targets": recipe.own_targets,
    }
    if isinstance(editor, VisEdit):
        return VisualTask(editor, backbone, source, objective, **given)
    return EditorTask(editor, backbone, source, objective, **given)


def train_on(
    backbone: Backbone,
    recipe: GeneralRecipe,
    source: EditSource,
    *,
    out: Path,
    work: Path,
    held_out: EditSource | None = None,
    processes: Processes | None = None,
    report: Report | None = None,
) -> LiveEdit | VisEdit:
    """Train or resume, round, and write the editor's two files into `out`.

    They are named as by `recipes.train_editor`. `work` keeps checkpoints, the lines of validation
    and the best weights so far. Only the first process writes.

    Raises:
        TrainingError: the recipe does not fit the backbone.
        AnotherPlan: `work` holds a run of another backbone, dataset or recipe.
    """
    team = processes or OneProcess()
    plan = TrainingPlan(**recipe.plan)
    source = source.fitting(can_be_taught(backbone))
    torch.manual_seed(plan.seed)
    editor = new_editor(
        recipe,
        hidden=backbone.hidden_size,
        depth=backbone.num_layers,
        fingerprint=backbone.fingerprint,
    )
    editor.module.to(backbone.device)
    objective: Objective = OBJECTIVES.resolve(recipe.objective)(**recipe.objective_settings)
    task = new_task(editor, backbone, source, objective, recipe)
    *_, first = task.compose(np.random.default_rng(plan.seed))
    editor.start_from(first.edits)
    watch = None
    if held_out is not None and recipe.validations and team.rank == 0:
        watch = Validation(
            editor,
            backbone,
            held_out.fitting(can_be_taught(backbone)),
            work,
            times=recipe.validations,
            cases=recipe.validation_edits,
            # A row without a picture meets no edit in service.
            locality="picture" if task.locality == "both" else task.locality,
        )
    progress = train(
        task,
        plan,
        work / "checkpoints",
        objective=objective,
        report=report,
        watch=watch,
        processes=team,
        identity=identity_of(backbone, editor, source, recipe),
    )
    round_weights(editor.module)
    editor.module.requires_grad_(False).eval()
    if team.rank == 0:
        notes = {
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "source": dict(source.identity),
            "recipe": dataclasses.asdict(recipe),
        }
        name = editor.name
        editor.save(out / f"{name}.safetensors", out / f"{name}.json", notes=notes)
    team.wait()
    return editor


def identity_of(
    backbone: Backbone, editor: LiveEdit | VisEdit, source: EditSource, recipe: GeneralRecipe
) -> dict[str, Any]:
    """What decides a step beside the plan: a run is not resumed with another."""
    return {
        "backbone": backbone.fingerprint,
        "dtype": backbone.placement.dtype_name,
        "editor": asdict(editor.config),
        "source": {**source.identity, "used": len(source)},
        "batch": recipe.batch,
        "own_targets": recipe.own_targets,
    }
