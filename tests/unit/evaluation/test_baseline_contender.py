"""A baseline in the benchmark's clothes, and how its settings are chosen."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.baselines.in_context import InContext
from editing_core.evaluation.baseline_contender import BaselineContender
from editing_core.evaluation.baseline_tuning import (
    measure,
    score_of,
    settings_text,
    trials_at_most,
    tune,
    unedited_answers,
    validation_cases,
)
from editing_core.evaluation.contender import MAX_ANSWER_TOKENS, Query
from editing_core.evaluation.edit_cases import edit_cases
from editing_core.evaluation.probes import GENERALITY, KINDS
from editing_core.types import EditRequest, Sampling
from tests.support.baselines import OTHER, REQUEST, baseline_of, contender_of
from tests.support.tiny_model import tiny_image


def test_unedited_it_answers_as_the_model_does(tiny_model: EditableModel) -> None:
    contender = BaselineContender.named("ft_l", tiny_model)
    questions = [(tiny_image(1), "What is it?"), (None, "the"), (tiny_image(2), "blu")]
    sampling = Sampling(max_new_tokens=MAX_ANSWER_TOKENS)

    replies = contender.answer([Query(image, prompt) for image, prompt in questions])

    rows = [GenerationRow(prompt, image, sampling) for image, prompt in questions]
    assert [reply.text for reply in replies] == [r.text for r in tiny_model.generate(rows)]
    assert all(reply.fired is None and reply.milliseconds > 0 for reply in replies)
    assert contender.diagnostics() == {}


def test_token_accuracy_counts_the_tokens_that_are_right(tiny_model: EditableModel) -> None:
    contender = contender_of(baseline_of(tiny_model, "ft_l", steps=80))
    query = Query(REQUEST.image, REQUEST.prompt)
    ids = tiny_model.backbone.encode_target(REQUEST.target)
    row = GenerationRow(REQUEST.prompt, REQUEST.image)

    (before,) = contender.token_accuracy([query], [REQUEST.target])
    chosen = tiny_model.token_logits(row, ids).argmax(-1)
    assert before == pytest.approx(float((chosen == torch.tensor(ids)).float().mean()))

    assert contender.edit(REQUEST)
    both = contender.token_accuracy([query, Query(None, "x")], [REQUEST.target, "a long one"])
    assert both[0] == 1.0
    assert 0.0 <= both[1] < 1.0
    assert contender.diagnostics()["edit_ms"] > 0
    contender.reset()
    assert contender.token_accuracy([query], [REQUEST.target]) == [before]


def test_an_edit_that_needs_more_context_than_there_is_is_refused(
    tiny_model: EditableModel,
) -> None:
    contender = contender_of(baseline_of(tiny_model, "recipe", tokens=180))

    assert not contender.edit(OTHER)
    assert contender.answer([Query(OTHER.image, OTHER.prompt)])[0].survivors == 0


def test_an_unknown_baseline_is_answered_with_the_known_ones(tiny_model: EditableModel) -> None:
    with pytest.raises(LookupError, match="ft_l, ft_m, grace, in_context, recipe"):
        BaselineContender.named("rome", tiny_model)


def test_tuning_sees_nothing_of_the_benchmark() -> None:
    ours, theirs = list(validation_cases(8)), list(edit_cases(8))

    assert [c.prompt for c in ours] == [c.prompt for c in validation_cases(8)]
    pictures = {
        probe.image.tobytes() for case in theirs for probe in case.probes if probe.image is not None
    }
    held_out = {
        probe.prompt for case in theirs for probe in case.probes if probe.kind == GENERALITY[1]
    }
    hard = {case.target for case in theirs if case.target_group != "alternative"}
    for case in ours:
        assert {probe.kind for probe in case.probes} <= set(KINDS)
        assert case.target not in hard
        for probe in case.probes:
            assert probe.prompt not in held_out
            assert probe.image is None or probe.image.tobytes() not in pictures


def test_the_score_wants_all_three() -> None:
    assert score_of({"reliability": 1.0, "text generality": 1.0, "image locality": 1.0}) == 1.0
    assert score_of({"reliability": 0.0, "text generality": 0.0, "image locality": 1.0}) == 0.0
    rates = {"reliability": 0.5, "text generality": 0.4, "image generality": 0.6, "l": 1.0}
    assert score_of(rates) == pytest.approx(3 / (2 + 2 + 1))


def test_tuning_tries_each_setting_once_and_ranks_them(tiny_model: EditableModel) -> None:
    cases, seen = list(validation_cases(1)), []

    trials = tune(
        InContext,
        tiny_model,
        cases,
        grid={"most": (4, 1), "fact": ("{prompt} {target}. ", "({target}) ")},
        on_trial=lambda trial: seen.append(settings_text(trial.settings)),
    )

    assert len(seen) == len(set(seen)) == len(trials) == 3
    assert seen[0] == "fact '{prompt} {target}. ', most 4"
    assert all(a.score >= b.score for a, b in pairwise(trials))
    assert trials_at_most(InContext) == 1 + sum(len(v) for v in InContext.grid.values())


def test_measuring_asks_everything_after_the_last_edit(tiny_model: EditableModel) -> None:
    contender = contender_of(baseline_of(tiny_model, "in_context"))
    cases = list(validation_cases(2))
    unedited = unedited_answers(contender, cases)
    contender.edit(EditRequest(tiny_image(1), "left over from before?", "a"))

    trial = measure(contender, cases, unedited)

    assert set(trial.rates) == {probe.kind for probe in cases[0].probes}
    assert trial.rates["text locality"] in (0.0, 0.5, 1.0)
    assert trial.edit_ms > 0
