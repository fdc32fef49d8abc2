"""From a frozen backbone to trained, calibrated, saved parts: one function per part.

Each function may be killed and called again with the same arguments; it goes on where it stopped.
Its working folder can be deleted when the part is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from editing_core.backbones.base import Backbone
from editing_core.editors.liveedit import Form, LiveEdit, LiveEditConfig
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.experts.weights import load_weights, round_weights
from editing_core.objectives.base import Objective
from editing_core.registry import OBJECTIVES
from editing_core.routing.router import Router, RouterConfig
from editing_core.training.calibrate import calibrate_router
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.liveedit import LiveEditTask, PrefixBank
from editing_core.training.pairs import RoutingBank
from editing_core.training.router import RouterTask
from editing_core.training.scenes import Stage
from editing_core.training.trainer import Notify, Report, TrainingPlan, train
from editing_core.training.visedit import InfluenceMaps, VisEditTask, measure_influence
from editing_core.training.world import FIRST_SUBJECT, Draw, draw_view

CONFIGS = Path(__file__).parents[1] / "configs"
_OBJECTIVE = "liveedit"


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
    """How an editor is trained. `objective` is a name in the registry, made with its settings."""

    layer: int
    form: Form | Literal["adapter"]
    shape: Mapping[str, int] = field(default_factory=dict)
    subjects: int = 800
    questions: int = 3
    everyday_share: float = 0.0
    batch: int = 24
    plausible_share: float = 0.5
    objective: str = _OBJECTIVE
    objective_settings: Mapping[str, Any] = field(default_factory=dict)
    check_batches: int = 20
    plan: Mapping[str, Any] = field(default_factory=dict)


def read_recipe(editor: str, name: str, part: str, **changes: Any) -> dict[str, Any]:
    """A part's settings from `configs/<editor>/<name>.yaml`; `changes` replace the plan's.

    A name that ends in `.yaml` is the path of a file of one's own.

    Raises:
        LookupError: there is no such file, or no such part in it.
    """
    path = Path(name) if name.endswith(".yaml") else CONFIGS / editor / f"{name}.yaml"
    if not path.is_file():
        raise LookupError(f"no recipe {name} for {editor}: {path} does not exist")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if part not in document:
        raise LookupError(f"{path} has no part {part!r}; it has: {', '.join(document)}")
    recipe: dict[str, Any] = document[part]
    if changes.get("steps") is not None or changes.get("minutes") is not None:
        for length in ("steps", "minutes"):
            recipe["plan"].pop(length, None)
    given = {name: value for name, value in changes.items() if value is not None}
    if given:
        recipe["plan"].update(given)
    return recipe


def choose_objective(recipe: dict[str, Any], name: str | None, settings: Sequence[str]) -> None:
    """Change a part's objective to `name`, unless None, and the settings given as `NAME=VALUE`.

    Another objective begins with its own defaults; values are read as YAML. Raises `LookupError`
    on a name that is not registered, `TypeError` or `ValueError` on a setting that does not fit.
    """
    chosen = name or recipe.get("objective", _OBJECTIVE)
    made_with: dict[str, Any] = {} if name else dict(recipe.get("objective_settings", {}))
    for setting in settings:
        key, is_pair, value = setting.partition("=")
        if not is_pair:
            raise ValueError(f"not NAME=VALUE: {setting}")
        made_with[key] = yaml.safe_load(value)
    OBJECTIVES.resolve(chosen)(**made_with)
    recipe.update(objective=chosen, objective_settings=made_with)


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


@dataclass(frozen=True, slots=True)
class Material:
    """What an editor is trained on and checked on, computed once: prefixes of the frozen model."""

    frozen: FrozenDecoder
    training: PrefixBank
    checking: PrefixBank
    maps: InfluenceMaps = field(default_factory=dict)


def gather(
    backbone: Backbone,
    recipe: EditorRecipe,
    *,
    draw: Draw = draw_view,
    notify: Notify | None = None,
) -> Material:
    """Prepare what a recipe trains on; it depends on neither form nor objective."""
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

    training = bank(recipe.subjects, split="train")
    maps: InfluenceMaps = {}
    if recipe.form == "adapter":
        maps = measure_influence(backbone, frozen, training, notify=notify)
    return Material(frozen, training, bank(4 * recipe.batch, split="validation"), maps)


def train_editor(
    backbone: Backbone,
    recipe: EditorRecipe,
    *,
    out: Path,
    work: Path,
    material: Material | None = None,
    start: Path | None = None,
    draw: Draw = draw_view,
    notify: Notify | None = None,
    report: Report | None = None,
) -> LiveEdit | VisEdit:
    """Train, round, check on unseen emblems, and write the editor's two files into `out`.

    They are `liveedit.*` for the aligned form, `liveedit-paper.*` for the paper's, and `visedit.*`
    for the adapter. `material` may be shared between runs. Training begins with the weights of the
    editor's file `start`, if given. Raises what `load_weights` raises.
    """
    plan = TrainingPlan(**recipe.plan)
    made_of = material or gather(backbone, recipe, draw=draw, notify=notify)
    torch.manual_seed(plan.seed)
    editor = _new_editor(backbone, recipe)
    objective: Objective = OBJECTIVES.resolve(recipe.objective)(**recipe.objective_settings)

    def task(bank: PrefixBank) -> LiveEditTask:
        given: dict[str, Any] = {
            "seed": plan.seed,
            "batch": recipe.batch,
            "plausible_share": recipe.plausible_share,
        }
        if isinstance(editor, VisEdit):
            given["maps"] = made_of.maps
            return VisEditTask(editor, backbone, made_of.frozen, bank, objective, **given)
        return LiveEditTask(editor, backbone, made_of.frozen, bank, objective, **given)

    training = task(made_of.training)
    if start is None:
        editor.start_from(training.draw(np.random.default_rng(plan.seed)).edits)
    else:
        load_weights(start, editor.module)
    checkpoints = work / _name_of(backbone) / "checkpoints"
    progress = train(training, plan, checkpoints, objective=objective, report=report)
    round_weights(editor.module)
    editor.module.requires_grad_(False).eval()
    figures = task(made_of.checking).evaluate(recipe.check_batches, seed=plan.seed)
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


def _new_editor(backbone: Backbone, recipe: EditorRecipe) -> LiveEdit | VisEdit:
    hidden, made_for = backbone.hidden_size, backbone.fingerprint
    if recipe.form == "adapter":
        adapter = VisEditConfig(hidden, recipe.layer, **recipe.shape)
        return VisEdit(adapter, backbone_fingerprint=made_for)
    generator = LiveEditConfig(hidden, recipe.layer, recipe.form, **recipe.shape)
    return LiveEdit(generator, backbone_fingerprint=made_for)
