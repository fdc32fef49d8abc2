"""From packages of pictures to eyes on disk: collect, look, train, calibrate, write."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.experts.weights import write_description
from editing_core.eyes.eyes import (
    DESCRIPTION,
    KIND,
    SHIPPED_BASE,
    WEIGHTS,
    EyesConfig,
    Gate,
    Head,
    fingerprint_of,
    read_network,
    shares_of,
    with_constant,
)
from editing_core.eyes.features import COLOURS
from editing_core.eyes.judge import Judge
from editing_core.eyes.sketch import Sketcher
from editing_core.training.eye_cuts import (
    gate_cut,
    second_cut,
    second_gate_figures,
    sure_score,
)
from editing_core.training.eye_figures import PLAIN, choose_cut, eyes_figures
from editing_core.training.eye_gate import Sights, glances, sights
from editing_core.training.eye_judge import JudgeTask, judge_cut, judge_figures, judged_pairs
from editing_core.training.eye_look import Looks, look, sketcher_of
from editing_core.training.eye_pictures import Split, Step, collect
from editing_core.training.eye_tasks import EyesRecipe, GateTask, HeadTask
from editing_core.training.trainer import Report, TrainingPlan, train

_RATE = 1e-3
_MATRIX_RATE = 3e-3
_GATE_STEPS = 1000
_GATE_PICTURES, _GATE_FOREIGN = 500, 1600
_SIGHTS: dict[Split, tuple[int, int]] = {
    "train": (300, 400),
    "calibration": (200, 100),
    "test": (200, 100),
}
"""Emblems and other pictures for the second gate."""
_SECOND_STEPS, _SECOND_DECAY = 600, 0.5
"""A weak decay left one emblem view of a hundred far on the wrong side."""
_JUDGE_RATE, _JUDGE_DECAY = 2e-3, 0.05
_DRAWN_WEIGHT = 3
"""What is made for the second gate counts so often beside the pictures that the head looks at."""


def train_eyes(
    backbone: Backbone,
    *,
    out: Path,
    work: Path,
    cache: Path,
    tau: float,
    steps: int,
    judge_steps: int,
    pictures: int,
    seed: int,
    notify: Step,
    report: Report | None = None,
    recipe: EyesRecipe | None = None,
    measured: int = 240,
) -> dict[str, float]:
    """Run or resume, then write the eyes into `out`; returns figures of the test pictures.

    `backbone` is the embedded model's, without eyes; `tau` its router's, on which the eyes' own
    threshold is moved. `measured` pictures set the threshold, and as many are only reported.
    Raises what `collect`, `read_network` and `trainer.train` raise.
    """
    recipe = recipe or EyesRecipe()
    network, album = read_network(SHIPPED_BASE), collect(cache, report=notify)
    kept: dict[Split, int] = {
        "train": pictures,
        "calibration": measured,
        "test": measured,
    }
    sketcher = sketcher_of(network, album, most=pictures, cache=work, seed=seed)
    looks = {
        split: look(
            network, sketcher, album, split, most=most, cache=work, seed=seed, report=notify
        )
        for split, most in kept.items()
    }
    sides = {
        split: glances(
            backbone,
            album,
            split,
            known=min(_GATE_PICTURES, most),
            foreign=min(_GATE_FOREIGN, most),
            cache=work,
            seed=seed,
            report=notify,
        )
        for split, most in kept.items()
    }
    seen = {
        split: sights(
            network,
            backbone,
            album,
            split,
            known=min(_SIGHTS[split][0], most),
            foreign=min(_SIGHTS[split][1], most),
            cache=work,
            seed=seed,
            report=notify,
        )
        for split, most in kept.items()
    }
    head = HeadTask(looks["train"], recipe, colours=COLOURS, seed=seed)
    plan = TrainingPlan(steps=steps, seed=seed, rate=_RATE, matrix_rate=_MATRIX_RATE)
    identity = {"recipe": asdict(recipe), "pictures": pictures}
    train(head, plan, work / "head", report=report, identity=identity)
    gate = GateTask(*sides["train"], recipe, seed=seed)
    steps = min(2 * steps, _GATE_STEPS)
    plan = TrainingPlan(steps=steps, seed=seed, rate=_RATE, matrix_rate=_MATRIX_RATE)
    train(gate, plan, work / "gate", identity=identity)
    second = GateTask(*_features(seen["train"], looks["train"]), recipe, seed=seed)
    plan = replace(plan, steps=min(steps, _SECOND_STEPS), weight_decay=_SECOND_DECAY)
    train(second, plan, work / "second-gate", identity=identity)
    with torch.no_grad():
        keys = keys_of(head.head, looks["train"].features)
    judge = JudgeTask(looks["train"], keys, sketcher, recipe, seed=seed)
    plan = TrainingPlan(
        steps=judge_steps,
        seed=seed,
        rate=_JUDGE_RATE,
        matrix_rate=_MATRIX_RATE,
        weight_decay=_JUDGE_DECAY,
    )
    train(judge, plan, work / "judge", report=report, identity=identity)
    return _write(
        Parts(head.head, gate.gate, second.gate, sketcher, judge.judge),
        looks,
        sides,
        seen,
        clip_dim=backbone.image_key_dim,
        tau=tau,
        out=out,
        recipe=recipe,
    )


def _features(seen: tuple[Sights, Sights], looks: Looks) -> tuple[Tensor, Tensor]:
    """`[n, width]` of emblems and of all else."""
    known, foreign = (each.features.float().flatten(0, 1) for each in seen)
    return known, torch.cat([looks.features.float().flatten(0, 1), *[foreign] * _DRAWN_WEIGHT])


@dataclass(frozen=True, slots=True)
class Parts:
    """All that was trained or fitted, under the names that it is saved by."""

    head: Head
    gate: Gate
    second_gate: Gate
    sketcher: Sketcher
    judge: Judge


@torch.no_grad()
def _write(
    parts: Parts,
    looks: dict[Split, Looks],
    sides: dict[Split, tuple[Tensor, Tensor]],
    seen: dict[Split, tuple[Sights, Sights]],
    *,
    clip_dim: int,
    tau: float,
    out: Path,
    recipe: EyesRecipe,
) -> dict[str, float]:
    head, gate, second, judge = parts.head, parts.gate, parts.second_gate, parts.judge
    # What is measured are the rounded weights that are saved.
    for module in (head, gate, second, judge):
        module.eval()
        for parameter in module.parameters():
            parameter.data = parameter.data.half().float()
    _lower(gate, gate_cut(gate, sides["calibration"][0]))
    sure = round(sure_score(gate, seen["calibration"][0]), 3)
    _lower(second, second_cut(gate, second, *seen["calibration"], sure=sure, tau=tau))
    calibration, test = (keys_of(head, looks[each].features) for each in ("calibration", "test"))
    cut = choose_cut(calibration, looks["calibration"], tau)
    judged = judged_pairs(parts.sketcher, judge, looks["calibration"], head, cut)
    _lower(judge, judge_cut(judged))
    config = EyesConfig(
        width=looks["train"].features.shape[-1],
        hidden=recipe.hidden,
        dim=recipe.dim,
        sketch_low=len(parts.sketcher.low_mean),
        sketch_middle=len(parts.sketcher.middle_mean),
        judge_wide=recipe.judge_wide,
        judge_deep=recipe.judge_deep,
        judge_hidden=recipe.judge_hidden,
        clip_dim=clip_dim,
        gate_width=sides["train"][0].shape[1],
        gate_hidden=recipe.gate_hidden,
        constant=round((tau - cut) / (1.0 - cut), 6),
        plain=PLAIN,
        sure=sure,
    )
    shares = shares_of(looks["test"].features, constant=config.constant, plain=config.plain)
    known, foreign = sides["test"]
    figures = {
        "cut": cut,
        "tau": tau,
        "gate: emblems known": float((gate(known[::2]) > 0).float().mean()),
        "gate: emblems known, changed": float((gate(known[1::2]) > 0).float().mean()),
        "gate: others foreign": float((gate(foreign) <= 0).float().mean()),
        **second_gate_figures(gate, second, *seen["test"], sure=sure, tau=tau),
        **eyes_figures(with_constant(test, shares), looks["test"], tau),
        **judge_figures(judged_pairs(parts.sketcher, judge, looks["test"], head, cut)),
    }
    tensors = {
        f"{name}.{key}": tensor.half().contiguous()
        for name in Parts.__slots__
        for module in (getattr(parts, name),)
        for key, tensor in module.state_dict().items()
    }
    described: dict[str, Any] = asdict(config)
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{WEIGHTS}.part"
    save_file(tensors, part)
    part.replace(out / WEIGHTS)
    document = {
        "kind": KIND,
        "config": described,
        "base": SHIPPED_BASE,
        "fingerprint": fingerprint_of(tensors, described, SHIPPED_BASE["sha256"]),
        "figures": figures,
    }
    write_description(out / DESCRIPTION, document)
    return figures


def keys_of(head: Head, features: Tensor) -> Tensor:
    """Of `[pictures, looks, width]`: `[pictures, looks, dim]`."""
    return torch.stack([head(each.float()) for each in features])


def _lower(gate: Gate | Judge, cut: float) -> None:
    """Make `cut` the score 0, in the precision that is saved."""
    gate.second.bias.data = (gate.second.bias.data - cut).half().float()
