"""One answer for each question: what follows from scores where edits of several targets fit."""

from __future__ import annotations

import torch

from editing_core.routing.decision import Scores, Thresholds, decide
from editing_core.types import RoutingDecision


def decided(
    text: list[float],
    targets: list[str],
    *,
    matched: tuple[str, ...] = (),
    lead: float = 0.0,
    excluded: list[bool] | None = None,
    limits: Thresholds | None = None,
) -> RoutingDecision:
    survivors = [(str(i), 0.95) for i in range(len(text))]
    scores = Scores(
        text=torch.tensor(text),
        matched=matched,
        excluded=None if excluded is None else torch.tensor(excluded),
    )
    return decide(survivors, scores, limits or Thresholds(), targets=targets, lead=lead)


def outcomes(decision: RoutingDecision) -> dict[str, str]:
    return {candidate.edit_id: candidate.outcome for candidate in decision.candidates}


def test_only_edits_of_the_heaviest_target_act_and_their_weights_sum_to_one() -> None:
    decision = decided([3.0, 2.9, 2.5], ["Royen", "Pine", "Royen"])
    assert outcomes(decision) == {"0": "applied", "1": "outweighed", "2": "applied"}
    assert {c.edit_id for c in decision.applied} == {"0", "2"}
    assert abs(sum(c.weight for c in decision.applied) - 1.0) < 1e-6


def test_two_lighter_edits_of_one_target_outweigh_a_heavier_one() -> None:
    decision = decided([3.0, 2.8, 2.8], ["a", "b", "b"])
    assert {c.edit_id for c in decision.applied} == {"1", "2"}


def test_edits_of_two_questions_too_near_to_each_other_stay_silent() -> None:
    names = ("What is the capital?", "What is the largest city?")
    near = decided([3.0, 2.8], ["a", "b"], matched=names, lead=0.5)
    assert set(outcomes(near).values()) == {"ambiguous"}
    assert near.applied == ()
    clear = decided([3.0, 2.4], ["a", "b"], matched=names, lead=0.5)
    assert outcomes(clear) == {"0": "applied", "1": "outweighed"}


def test_the_same_question_on_two_pictures_is_decided_by_the_picture() -> None:
    decision = decided([3.0, 3.0], ["a", "b"], matched=("Capital?", "capital?"), lead=0.5)
    assert len(decision.applied) == 1


def test_edits_of_one_target_are_never_ambiguous() -> None:
    decision = decided([3.0, 2.9], ["a", "a"], matched=("x?", "y?"), lead=0.5)
    assert len(decision.applied) == 2


def test_a_nearer_question_to_leave_alone_excludes_an_edit() -> None:
    decision = decided([3.0, 2.0], ["a", "b"], excluded=[True, False])
    assert outcomes(decision) == {"0": "excluded", "1": "applied"}


def test_the_paper_fuses_all_survivors() -> None:
    limits = Thresholds(one_answer=False)
    assert len(decided([3.0, 2.9], ["a", "b"], limits=limits).applied) == 2


def test_without_targets_all_survivors_act() -> None:
    assert len(decided([3.0, 2.9], []).applied) == 2
