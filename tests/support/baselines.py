"""Baselines on the tiny model: a few large steps, enough to change what it computes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel
from editing_core.editors.baselines.base import Baseline
from editing_core.editors.baselines.ft_l import FtLSettings
from editing_core.editors.baselines.ft_m import FtMSettings
from editing_core.editors.baselines.grace import GraceSettings
from editing_core.editors.baselines.in_context import InContextSettings
from editing_core.editors.baselines.recipe import RecipeSettings
from editing_core.evaluation.baseline_contender import BaselineContender
from editing_core.registry import BASELINES
from editing_core.types import EditRequest, ImageArray
from tests.support.tiny_model import tiny_image

SETTINGS: dict[str, Any] = {
    "ft_l": FtLSettings(layer=2, rate=0.02, steps=6, bound=math.inf),
    "ft_m": FtMSettings(rate=0.02, steps=6, bound=math.inf),
    "grace": GraceSettings(layer=1, radius=0.5, rate=0.3, steps=6),
    "in_context": InContextSettings(),
    "recipe": RecipeSettings(tokens=4, rate=0.2, steps=6),
}
REQUEST = EditRequest(tiny_image(1), "What is it?", "blu")
OTHER = EditRequest(tiny_image(2), "Is this the one?", "this")


def baseline_of(model: EditableModel, name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A baseline of the tiny model, with some settings changed."""
    settings = SETTINGS[name]
    if changes:
        settings = type(settings)(**{**_as_dict(settings), **changes})
    return BASELINES.resolve(name)(model.backbone, model.router, settings, seed=seed)


def contender_of(baseline: Baseline) -> BaselineContender:
    """It, as the benchmark sees it."""
    return BaselineContender(baseline)


@torch.no_grad()
def logits_of(baseline: Baseline, prompt: str, image: ImageArray | None) -> Tensor:
    """Teacher-forced logits with its edits in force, `[T, vocab]` of the one row."""
    with baseline.in_force():
        batch, acting = baseline.begin([PromptRow(prompt, image, target_ids=(5, 6))])
        return baseline.backbone.forward(batch, taps=acting.prefill_taps())[0]


@torch.no_grad()
def base_logits(model: EditableModel, prompt: str, image: ImageArray | None) -> Tensor:
    """The same of the base model."""
    batch = model.backbone.prepare([PromptRow(prompt, image, target_ids=(5, 6))])
    return model.backbone.forward(batch)[0]


def _as_dict(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
