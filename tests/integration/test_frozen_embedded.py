"""The embedded model as a plain folder: what frozen features are worth on emblems never shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from editing_core.backbones.batch import PromptRow
from editing_core.checkpoint import EMBEDDED
from editing_core.editable_model import EditableModel
from editing_core.evaluation.edit_cases import held_out, look_alike_of
from editing_core.heraldry.emblem import emblem_from_seed, stream
from editing_core.heraldry.questions import questions_about
from editing_core.heraldry.views import view_of
from editing_core.routing.frozen_features import FrozenRouter
from editing_core.states import RoutingStates
from editing_core.types import ImageArray

EMBLEMS = range(9000, 9060)


def gate_and_cosine(
    model: EditableModel, edit: tuple[ImageArray, str], query: tuple[ImageArray, str]
) -> tuple[bool, bool]:
    """Whether a query's words pass an edit's gate, and whether its picture passes the filter."""
    router, backbone = model.router, model.backbone
    assert isinstance(router, FrozenRouter)
    rows = backbone.prepare([PromptRow(words, image) for image, words in (edit, query)]).rows
    own, asked = backbone.word_states(rows, router.layer)
    image = [model.image_key(picture) for picture, _ in (edit, query)]
    key = router.keys(RoutingStates(own, own), image[0])
    scores = router.scores(RoutingStates(own, asked), [key], own.new_ones(1))
    passes = bool(scores.text.sigmoid() >= router.rho)
    return passes, float(image[0] @ image[1]) >= router.tau


@pytest.mark.slow
def test_held_out_emblems_are_told_apart(tmp_path: Path) -> None:
    """Whole first start, as it is; the marks lie a little below what was measured."""
    model = EditableModel.load(EMBEDDED / "model", parts=tmp_path)
    assert model.router.image_key_model == "tower-pooled"
    kept, dropped, seen, alike, unrelated = [], [], [], [], []
    before: tuple[ImageArray, str] | None = None
    for seed in EMBLEMS:
        emblem, rng = emblem_from_seed(seed, "unseen"), stream("unseen", seed, 0, 31)
        questions = questions_about(emblem, rng)
        question = questions[int(rng.integers(len(questions)))]
        views = [view_of(emblem, seed=seed, view=view).image for view in (0, 1)]
        twin = view_of(look_alike_of(emblem, seed), seed=seed, view=2).image
        edit = (views[0], question.wordings[0])
        others = [q for q in questions if q.kind != question.kind]
        words, picture = gate_and_cosine(model, edit, (views[1], held_out([question], rng)))
        kept.append(words)
        seen.append(picture)
        words, picture = gate_and_cosine(model, edit, (twin, held_out(others, rng)))
        dropped.append(not words)
        alike.append(not picture)
        if before is not None:
            unrelated.append(not gate_and_cosine(model, before, edit)[1])
        before = edit

    figures = model.router.figures
    assert figures["text_other_question_dropped"] >= 0.99
    assert figures["tau_own_kept"] >= 0.9
    found = {
        "wording kept": kept,
        "other question dropped": dropped,
        "view kept": seen,
        "look-alike dropped": alike,
        "unrelated picture dropped": unrelated,
    }
    shares = {name: float(np.mean(values)) for name, values in found.items()}
    marks = {"wording kept": 0.6, "other question dropped": 0.9, "view kept": 0.9}
    marks |= {"unrelated picture dropped": 1.0}
    assert {n: s for n, s in shares.items() if s < marks.get(n, 0.0)} == {}, shares
