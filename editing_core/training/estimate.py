"""What a training will take, told before it begins: counted from configurations, then measured.

Memory is that of one process. What is counted are tensors, without what an allocator adds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from editing_core.backbones.base import Backbone
from editing_core.objectives.base import Objective
from editing_core.registry import OBJECTIVES
from editing_core.training.general import EditorTask
from editing_core.training.general_recipe import GeneralRecipe, new_editor, new_task
from editing_core.training.sources import EditSource
from editing_core.training.trainer import TrainingPlan, make_optimisers

_LOOKED_AT = 4
_FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one draw, and the longest of a few that were looked at: tokens, and of its answer."""

    count: int
    tokens: int
    answer: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counts of parameters, and bytes by what they hold."""

    layer: int
    rows: Rows
    frozen: int
    trained: int
    weights: int
    training: int
    states: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Bytes that are held at once, at most."""
        return self.weights + self.training + self.states + self.activations + self.logits


def estimate(
    outline: Backbone, recipe: GeneralRecipe, source: EditSource, *, bytes_per_number: int
) -> Estimate:
    """Count, given a model without weights. A few edits are read, to know how long rows are.

    Raises `TrainingError` where the recipe does not fit the model.
    """
    with torch.device("meta"):
        editor, task = _task(outline, recipe, source)
    rows = _look_at(outline, task, source, batch=min(recipe.batch, len(source)))
    columns = rows.count * rows.tokens
    above = list(outline.layers)[editor.edit_layer + 1 :]
    trained = sum(parameter.numel() for parameter in editor.module.parameters())
    matrices = sum(m.weight.numel() for m in editor.module.modules() if isinstance(m, nn.Linear))
    vocabulary = _outputs(outline.output_head)
    return Estimate(
        layer=editor.edit_layer,
        rows=rows,
        frozen=outline.num_parameters,
        trained=trained,
        weights=outline.num_parameters * bytes_per_number,
        # Weight, gradient, and what its optimiser keeps: two tensors, of matrices (Muon) one.
        training=(4 * trained - matrices) * _FLOAT32,
        # Below the edit, above it, and what is added.
        states=3 * columns * outline.hidden_size * bytes_per_number,
        activations=columns * sum(map(_kept_by, above)) * bytes_per_number,
        # Edited and base, their log-probabilities, and gradients.
        logits=6 * rows.count * rows.answer * vocabulary * _FLOAT32,
    )


def measure_step(backbone: Backbone, recipe: GeneralRecipe, source: EditSource) -> float:
    """Seconds of one draw, there and back: the second of two. Nothing is written."""
    editor, task = _task(backbone, recipe, source)
    editor.module.to(backbone.device)
    optimisers = make_optimisers(task.module, TrainingPlan(**recipe.plan))
    seconds = 0.0
    for number in range(2):
        began = time.perf_counter()
        task.loss(number).total.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        seconds = time.perf_counter() - began
    return seconds


def _task(backbone: Backbone, recipe: GeneralRecipe, source: EditSource) -> tuple[Any, EditorTask]:
    editor = new_editor(
        recipe,
        hidden=backbone.hidden_size,
        depth=backbone.num_layers,
        fingerprint=backbone.fingerprint,
    )
    objective: Objective = OBJECTIVES.resolve(recipe.objective)(**recipe.objective_settings)
    return editor, new_task(editor, backbone, source, objective, recipe)


def _look_at(outline: Backbone, task: EditorTask, source: EditSource, *, batch: int) -> Rows:
    tokens, answer, probes = 0, 0, 0
    rng = np.random.default_rng(0)
    for number in range(min(_LOOKED_AT, len(source))):
        edit = source.draw(number, rng, locality=task.locality)
        chosen = task.choose(edit, rng)
        probes = max(probes, len(chosen))
        for probe in chosen:
            ids = outline.encode_target(probe.answer or edit.target)
            row = outline.lay_out(
                probe.prompt,
                has_image=probe.image is not None,
                target_ids=ids,
                pictures=() if probe.image is None else (outline.picture_of(probe.image),),
            )
            tokens, answer = max(tokens, len(row.ids)), max(answer, len(ids))
    return Rows(batch * probes, tokens, answer)


def _kept_by(block: nn.Module) -> int:
    """Numbers that a block keeps of each token for the way back.

    What each of its matrices gives out, and four times the residual stream for norms and sums.
    The matrices' own inputs are not needed: they are frozen.
    """
    matrices = [module for module in block.modules() if isinstance(module, nn.Linear)]
    widths = [matrix.out_features for matrix in matrices]
    return sum(widths) + 4 * max((m.in_features for m in matrices[:1]), default=0)


def _outputs(head: nn.Module) -> int:
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    return len(weight)
