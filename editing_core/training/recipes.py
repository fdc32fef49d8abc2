"""From a frozen backbone to trained, calibrated, saved parts: one function per part.

Each function may be killed and called again with the same arguments; it goes on where it stopped.
Its working folder can be deleted when the part is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from editing_core.backbones.base import Backbone
from editing_core.editors.liveedit import Form, LiveEdit, LiveEditConfig
from editing_core.experts.weights import round_weights
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.routing.router import Router, RouterConfig
from editing_core.training.calibrate import calibrate_router
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.liveedit import LiveEditTask, PrefixBank
from editing_core.training.pairs import RoutingBank
from editing_core.training.router import RouterTask
from editing_core.training.scenes import Stage
from editing_core.training.trainer import Notify, Report, TrainingPlan, train
from editing_core.training.world import FIRST_SUBJECT, Draw, draw_view

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True, slots=True)
class RouterRecipe:
    """How a router is trained. `plan` is a `TrainingPlan`'s settings."""

    layer: int
    shape: Mapping[str, int] = field(default_factory=dict)
    subjects: int = 1500
    questions: int = 9
    batch: int = 6
    picture_subjects: int = 0
    picture_questions: int = 3
    picture_batch: int = 14
    picture_share: float = 0.6
    everyday_share: float = 0.0
    calibration_subjects: int = 150
    calibration_pictures: int = 1000
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditorRecipe:
    """How an editor is trained."""

    layer: int
    form: Form
    shape: Mapping[str, int] = field(default_factory=dict)
    subjects: int = 800
    questions: int = 3
    everyday_share: float = 0.0
    batch: int = 24
    locality_weight: float = 1.0
    check_batches: int = 20
    plan: Mapping[str, Any] = field(default_factory=dict)


def read_recipe(editor: str, backbone: str, part: str, **changes: Any) -> dict[str, Any]:
    """A part's settings from `configs/<editor>/<backbone>.yaml`; `changes` replace the plan's.

    Raises:
        LookupError: there is no such file, or no such part in it.
    """
    path = CONFIGS / editor / f"{backbone}.yaml"
    if not path.is_file():
        raise LookupError(f"no recipe for {editor} on {backbone}: {path} does not exist")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if part not in document:
        raise LookupError(f"{path} has no part {part!r}; it has: {', '.join(document)}")
    recipe: dict[str, Any] = document[part]
    if changes.get("steps") is not None or changes.get("minutes") is not None:
        for length in ("steps", "minutes"):
            recipe["plan"].pop(length, None)
    recipe["plan"].update({k: v for k, v in changes.items() if v is not None})
    return recipe


def _name_of(backbone: Backbone) -> str:
    """A folder's name: what was computed on one base model must never be used on another."""
    return f"base-{backbone.fingerprint.removeprefix('sha256:')[:12]}"


def train_router(
    backbone: Backbone,
    recipe: RouterRecipe,
    *,
    out: Path,
    work: Path,
    draw: Draw = draw_view,
    notify: Notify | None = None,
    report: Report | None = None,
) -> Router:
    """Train, round, calibrate and write `router.safetensors` and `router.json` into `out`."""
    plan = TrainingPlan(**recipe.plan)
    work = work / _name_of(backbone)
    frozen = FrozenDecoder(backbone.decoder, backbone.output_head, layer=recipe.layer)
    stage = Stage(backbone, frozen, all_blocks=False)

    def bank_of(first: int, count: int, questions: int) -> RoutingBank:
        return RoutingBank.prepare(
            stage,
            range(first, first + count),
            split="train",
            questions=questions,
            everyday_share=recipe.everyday_share,
            draw=draw,
            folder=work / "bank",
            notify=notify,
        )

    bank = bank_of(FIRST_SUBJECT, recipe.subjects, recipe.questions)
    pictures = None
    if recipe.picture_subjects:
        pictures = bank_of(
            FIRST_SUBJECT + recipe.subjects, recipe.picture_subjects, recipe.picture_questions
        )
    torch.manual_seed(plan.seed)
    router = Router(
        RouterConfig(
            hidden=backbone.hidden_size,
            layer=recipe.layer,
            num_patches=backbone.num_image_tokens,
            image_key_model=backbone.image_key_model,
            **recipe.shape,
        ),
        backbone_fingerprint=backbone.fingerprint,
    )
    router.sentinel.start_from(bank.images[:200].flatten(0, 1))
    train(
        RouterTask(
            router,
            bank,
            seed=plan.seed,
            batch=recipe.batch,
            pictures=pictures,
            picture_batch=recipe.picture_batch,
            picture_share=recipe.picture_share,
        ),
        plan,
        work / "checkpoints",
        report=report,
    )
    round_weights(router)
    router.requires_grad_(False).eval()
    calibrated = calibrate_router(
        router,
        stage,
        subjects=recipe.calibration_subjects,
        pictures=recipe.calibration_pictures,
        questions=recipe.questions,
        draw=draw,
        notify=notify,
    )
    calibrated.save(out / "router.safetensors", out / "router.json")
    return calibrated


def train_liveedit(
    backbone: Backbone,
    recipe: EditorRecipe,
    *,
    out: Path,
    work: Path,
    draw: Draw = draw_view,
    notify: Notify | None = None,
    report: Report | None = None,
) -> LiveEdit:
    """Train, round, check on unseen emblems, and write the editor's two files into `out`.

    They are `liveedit.*` for the aligned form and `liveedit-paper.*` for the paper's.
    """
    plan = TrainingPlan(**recipe.plan)
    work = work / _name_of(backbone)
    frozen = FrozenDecoder(backbone.decoder, backbone.output_head, layer=recipe.layer)
    stage = Stage(backbone, frozen, all_blocks=True)

    def bank(count: int, *, split: Any) -> PrefixBank:
        return PrefixBank.prepare(
            stage,
            range(FIRST_SUBJECT, FIRST_SUBJECT + count),
            split=split,
            questions=recipe.questions,
            everyday_share=recipe.everyday_share,
            draw=draw,
            notify=notify,
        )

    torch.manual_seed(plan.seed)
    editor = LiveEdit(
        LiveEditConfig(
            hidden=backbone.hidden_size,
            edit_layer=recipe.layer,
            form=recipe.form,
            **recipe.shape,
        ),
        backbone_fingerprint=backbone.fingerprint,
    )
    objective = LiveEditObjective(locality_weight=recipe.locality_weight)

    def task(bank: PrefixBank) -> LiveEditTask:
        return LiveEditTask(
            editor,
            backbone,
            frozen,
            bank,
            objective,
            seed=plan.seed,
            batch=recipe.batch,
            with_locality=recipe.locality_weight > 0,
        )

    training = task(bank(recipe.subjects, split="train"))
    editor.start_from(training.draw(np.random.default_rng(plan.seed)).edits)
    progress = train(training, plan, work / "checkpoints", report=report)
    round_weights(editor.module)
    editor.module.requires_grad_(False).eval()
    check = task(bank(4 * recipe.batch, split="validation"))
    figures = check.evaluate(recipe.check_batches, seed=plan.seed)
    editor.save(
        out / f"{editor.name}.safetensors",
        out / f"{editor.name}.json",
        notes={
            "steps": progress.step,
            "seconds": round(progress.seconds, 1),
            "exact_match_on_unseen_emblems": figures,
            "recipe": dataclasses.asdict(recipe),
        },
    )
    return editor
