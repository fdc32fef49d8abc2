"""What follows from a query's scores, whichever router made them: who acts, and with what weight.

sketches      one picture              where the eyes laid two of them side by side
visual score  > margin                 where the router has visual keys
text gate     >= rho                   gate = sigmoid(text score); and no `not_for` is nearer
the rest      one softmax              `scores.survivor_weights`
one answer    the heaviest target      experts of other targets are left out, weights sum to 1 again

An answer never mixes two targets: token by token, that would be nobody's. And a wrong fact is worse
than a miss. So where edits of two targets were matched by different wordings, and the heavier one
leads by less than `lead`, none acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.questions.preference import Preference
from editing_core.routing.scores import WeightRule, survivor_weights
from editing_core.types import Candidate, Outcome, RoutingDecision


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What calibration decides for every router.

    `beta` and `margin` are of visual scores and do nothing in a router that makes none. `rho` is of
    the router's own text scores; where a question encoder makes them, `prefer` names the point on
    its line that holds instead. `one_answer` False fuses all survivors, as the paper does.
    """

    tau: float = 0.85
    rho: float = 0.5
    alpha: float = 0.0
    beta: float = 1.0
    margin: float = 0.0
    rule: WeightRule = "joint"
    prefer: Preference = "balanced"
    one_answer: bool = True


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each survivor, `[survivors]`: `text` before its sigmoid, and `visual`, above 0 where the
    picture is the right one; None from a router without visual keys, whose `tau` decides alone.

    `another` bool: laid side by side, its picture is another. `excluded` bool: a question that the
    edit must leave alone is nearer. `matched` is the wording that spoke for it, where that is
    known.
    """

    text: Tensor
    visual: Tensor | None = None
    another: Tensor | None = None
    excluded: Tensor | None = None
    matched: tuple[str, ...] = ()


def decide(
    survivors: Sequence[tuple[str, float]],
    scores: Scores,
    limits: Thresholds,
    *,
    targets: Sequence[str] = (),
    lead: float = 0.0,
) -> RoutingDecision:
    """Of edits with the cosine of their image key, in the order of `scores`; highest weight first.

    The weights of those that act sum to 1 under the rule `joint`. `targets` are what the survivors
    answer; without them all are taken to answer the same.
    """
    text, gate = scores.text, scores.text.sigmoid()
    image = torch.tensor([cosine for _, cosine in survivors], device=gate.device)
    looks_right = torch.ones_like(gate, dtype=torch.bool)
    visual = torch.zeros_like(gate)
    if scores.visual is not None:
        visual = scores.visual - limits.margin
        looks_right = visual > 0
    none = torch.zeros_like(looks_right)
    excluded = none if scores.excluded is None else scores.excluded
    another = none if scores.another is None else scores.another.to(gate.device)
    asks_this = (gate >= limits.rho) | (limits.rule == "paper")
    kept = ~another & looks_right & asks_this & ~excluded
    outcomes: list[Outcome] = [
        "another_picture" if is_another else _outcome(looks, asks_this=asks, excluded=out)
        for is_another, looks, asks, out in zip(
            another.tolist(),
            looks_right.tolist(),
            asks_this.tolist(),
            excluded.tolist(),
            strict=True,
        )
    ]
    weights = torch.zeros_like(gate)
    if bool(kept.any()):
        weights[kept] = survivor_weights(
            text[kept],
            visual[kept],
            image[kept],
            rule=limits.rule,
            alpha=limits.alpha,
            beta=limits.beta,
            tau=limits.tau,
        )
        if targets and limits.one_answer and limits.rule == "joint":
            chosen = _one_answer(weights, targets, scores.matched, lead)
            for i in kept.nonzero().flatten().tolist():
                if not chosen:
                    outcomes[i] = "ambiguous"
                elif i not in chosen:
                    outcomes[i] = "outweighed"
            mask = torch.zeros_like(kept)
            mask[sorted(chosen)] = True
            weights = torch.where(mask, weights, 0.0)
            weights = weights / weights.sum().clamp_min(1e-30)
    matched = scores.matched or (None,) * len(survivors)
    candidates = [
        Candidate(edit_id, cosine, text_similarity, weight, outcome, wording)
        for (edit_id, cosine), text_similarity, weight, outcome, wording in zip(
            survivors, gate.tolist(), weights.tolist(), outcomes, matched, strict=True
        )
    ]
    candidates.sort(key=lambda c: (-c.weight, -c.text_similarity, c.edit_id))
    return RoutingDecision(candidates=tuple(candidates))


def _one_answer(
    weights: Tensor, targets: Sequence[str], matched: Sequence[str], lead: float
) -> set[int]:
    """The survivors of the heaviest target; none where another target's best is too near to it.

    The logarithm of two weights' ratio is their lead in the score before the softmax.
    """
    values = weights.tolist()
    rows = [i for i, weight in enumerate(values) if weight > 0.0]
    total: dict[str, float] = {}
    for i in rows:
        total[targets[i]] = total.get(targets[i], 0.0) + values[i]
    winner = max(total, key=lambda target: total[target])
    best = max((i for i in rows if targets[i] == winner), key=lambda i: values[i])
    rivals = [i for i in rows if targets[i] != winner]
    if rivals and matched:
        rival = max(rivals, key=lambda i: values[i])
        ahead = float(weights[best].log() - weights[rival].log())
        if matched[rival].casefold() != matched[best].casefold() and ahead < lead:
            return set()
    return {i for i in rows if targets[i] == winner}


def _outcome(looks_right: bool, *, asks_this: bool, excluded: bool) -> Outcome:
    if not looks_right:
        return "below_sentinel"
    if excluded:
        return "excluded"
    return "applied" if asks_this else "below_text_gate"
