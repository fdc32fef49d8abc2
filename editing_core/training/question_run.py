"""From a corpus to a question encoder on disk: train, average, measure, write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from editing_core.experts.weights import write_description
from editing_core.questions.corpus import SHIPPED as SHIPPED_CORPUS
from editing_core.questions.corpus import Intent, by_topic, read_corpus
from editing_core.questions.encoder import (
    DELTA,
    DESCRIPTION,
    KIND,
    SHIPPED_BASE,
    base_folder,
    delta_fingerprint,
    file_digest,
    read_base,
)
from editing_core.questions.known import FILE_NAME as KNOWN
from editing_core.training.checkpoint import Progress
from editing_core.training.known_questions import write_known
from editing_core.training.question_figures import (
    compare,
    curve,
    cut_at,
    gate_line,
    hits,
    wrong_edits,
)
from editing_core.training.questions import QuestionRecipe, QuestionTask
from editing_core.training.trainer import Report, TrainingPlan, train

logger = logging.getLogger(__name__)

_RATE = 1e-3
_BALANCED = 0.08
_KNOWN = 0.55


def train_encoder(
    *,
    out: Path,
    corpus: Path | None,
    base: Path | None,
    work: Path,
    steps: int,
    seed: int,
    measure_every: int,
    report: Report | None = None,
    recipe: QuestionRecipe | None = None,
) -> dict[str, float]:
    """Run or resume, then write the encoder into `out`; returns figures of the test topics.

    Raises what `read_corpus`, `read_base` and `trainer.train` raise.
    """
    recipe = recipe or QuestionRecipe()
    intents = read_corpus(corpus or SHIPPED_CORPUS)
    named = SHIPPED_BASE if base is None else {"path": str(base.resolve())}
    folder = base_folder(named)
    network, tokenizer = read_base(folder)
    task = QuestionTask(network, tokenizer, by_topic(intents, "train"), recipe, seed=seed)
    validation = by_topic(intents, "validation")

    def watch(progress: Progress, _share: float) -> None:
        if progress.step % measure_every == 0:
            logger.info("step %d, validation: %s", progress.step, _told(task, validation))

    plan = TrainingPlan(steps=steps, seed=seed, rate=_RATE, constant=0.1, report_every=20)
    train(
        task,
        plan,
        work,
        report=report,
        watch=watch,
        identity={"recipe": asdict(recipe)},
    )
    digest = file_digest(folder / "model.safetensors")
    return _write(task, out, intents, {**named, "sha256": digest}, recipe)


def _told(task: QuestionTask, topics: Mapping[str, Sequence[Intent]]) -> str:
    compared = compare(task.keys, topics)
    at = hits(compared, cut_at(compared, _BALANCED))
    parts = [f"{share} {hit:.3f}" for share, hit in curve(compared).items()]
    return f"{', '.join(parts)}; at {_BALANCED}: " + ", ".join(
        f"{kind} {hit:.2f}" for kind, hit in at.items()
    )


def _write(
    task: QuestionTask,
    out: Path,
    intents: Sequence[Intent],
    base: Mapping[str, Any],
    recipe: QuestionRecipe,
) -> dict[str, float]:
    delta: dict[str, Tensor] = task.delta()
    validation = by_topic(intents, "validation")
    line = replace(gate_line(compare(task.keys, validation)), known=_KNOWN)
    tested = compare(task.keys, by_topic(intents, "test"))
    cut = cut_at(tested, _BALANCED)
    figures = {
        **{f"hit where {share} of confusables fire": hit for share, hit in curve(tested).items()},
        **{f"hit at {_BALANCED}, {kind}": hit for kind, hit in hits(tested, cut).items()},
    }
    for name, rho in line.rho.items():
        at = float((torch.logit(torch.tensor(rho)) - line.bias) / line.slope)
        figures[f"{name}: hit"] = hits(tested, at)["all"]
        figures[f"{name}: confusables that fire"] = float((tested.unwanted > at).mean())
        figures[f"{name}: another edit answers"] = wrong_edits(tested, at, line.lead / line.slope)
    config = {"scale": recipe.scale, "rank": recipe.rank, "spelling": True}
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{DELTA}.part"
    save_file(delta, part)
    part.replace(out / DELTA)
    write_known(out / KNOWN, lambda texts: task.keys(texts).numpy(), intents)
    document = {
        "kind": KIND,
        "config": config,
        "base": dict(base),
        "fingerprint": delta_fingerprint(delta, config, str(base["sha256"])),
        "line": asdict(line),
        "figures": figures,
    }
    write_description(out / DESCRIPTION, document)
    return figures
