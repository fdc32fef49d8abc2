"""What follows from a query's scores, whichever router made them: who acts, and with what weight.

visual score  > margin                 where the router has visual keys
text gate     >= rho                   gate = sigmoid(text score)
the rest      one softmax              `scores.survivor_weights`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.routing.scores import WeightRule, survivor_weights
from editing_core.types import Candidate, Outcome, RoutingDecision


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What calibration decides for every router.

    `beta` and `margin` are of visual scores and do nothing in a router that makes none.
    """

    tau: float = 0.85
    rho: float = 0.5
    alpha: float = 0.0
    beta: float = 1.0
    margin: float = 0.0
    rule: WeightRule = "joint"


@dataclass(frozen=True, slots=True)
class Scores:
    """Of each survivor, `[survivors]`: `text` before its sigmoid, and `visual`, above 0 where the
    picture is the right one; None from a router without visual keys, whose `tau` decides alone."""

    text: Tensor
    visual: Tensor | None = None


def decide(
    survivors: Sequence[tuple[str, float]], scores: Scores, limits: Thresholds
) -> RoutingDecision:
    """Of edits with the cosine of their image key, in the order of `scores`; highest weight first.

    The weights of those that act sum to 1 under the rule `joint`.
    """
    text, gate = scores.text, scores.text.sigmoid()
    image = torch.tensor([cosine for _, cosine in survivors], device=gate.device)
    looks_right = torch.ones_like(gate, dtype=torch.bool)
    visual = torch.zeros_like(gate)
    if scores.visual is not None:
        visual = scores.visual - limits.margin
        looks_right = visual > 0
    asks_this = (gate >= limits.rho) | (limits.rule == "paper")
    kept = looks_right & asks_this
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
    candidates = [
        Candidate(
            edit_id=edit_id,
            image_similarity=cosine,
            text_similarity=float(gate[i]),
            weight=float(weights[i]),
            outcome=_outcome(bool(looks_right[i]), asks_this=bool(asks_this[i])),
        )
        for i, (edit_id, cosine) in enumerate(survivors)
    ]
    candidates.sort(key=lambda c: (-c.weight, -c.text_similarity, c.edit_id))
    return RoutingDecision(candidates=tuple(candidates))


def _outcome(looks_right: bool, *, asks_this: bool) -> Outcome:
    if not looks_right:
        return "below_sentinel"
    return "applied" if asks_this else "below_text_gate"
