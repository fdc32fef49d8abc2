"""Measures the editor `fitted` on a frozen backbone: what it needs of a model, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.editors.fitted import Fitted
from editing_core.heraldry.emblem import stream
from editing_core.training.targets import draw_target
from editing_core.training.world import FIRST_SUBJECT, Draw, draw_view, subject, word


@dataclass(frozen=True, slots=True)
class FittedRecipe:
    """What is measured, and where. `shape` are further settings of `FittedConfig`."""

    layer: int
    subjects: int = 200
    questions: int = 2
    everyday_share: float = 0.3
    shape: Mapping[str, float] = field(default_factory=dict)


def measure_fitted(
    backbone: Backbone, recipe: FittedRecipe, *, out: Path | None = None, draw: Draw = draw_view
) -> Fitted:
    """The editor of a backbone, measured on training's own pictures, questions and targets.

    Writes `fitted.*` into the folder `out`, if there is one.
    """
    rows = rows_of(recipe, draw=draw)
    editor = Fitted.measure(backbone, recipe.layer, rows, **recipe.shape)
    if out is not None:
        notes = {"rows": len(rows), "recipe": asdict(recipe)}
        editor.save(out / "fitted.safetensors", out / "fitted.json", notes=notes)
    return editor


def rows_of(recipe: FittedRecipe, *, draw: Draw = draw_view) -> list[PromptRow]:
    """Each subject's picture with as many questions, each with a target as an edit might have."""
    rows: list[PromptRow] = []
    for number in range(FIRST_SUBJECT, FIRST_SUBJECT + recipe.subjects):
        shown = subject(number, "train", everyday_share=recipe.everyday_share)
        rng = stream("train", number, 0, 42)
        image = shown.pictures(1, draw)[0][0]
        for question in shown.questions[: recipe.questions]:
            prompt, _ = word(question, rng)
            rows.append(PromptRow(prompt, image, draw_target(rng, question.alternatives)))
    return rows
