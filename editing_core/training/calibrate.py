"""Calibrates a trained router on emblems of a split of their own, with look-alikes among them.

Not on everyday scenes: the figures stored with the router are about emblems, and so are the probes
they are held against.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from editing_core.heraldry.emblem import Split
from editing_core.routing.calibration import choose_cut, choose_mix, choose_tau
from editing_core.routing.router import Router
from editing_core.training.pairs import Comparison, RoutingBank, compare
from editing_core.training.scenes import Stage
from editing_core.training.trainer import Notify
from editing_core.training.world import Draw, draw_view, subject

SPLIT: Split = "calibration"
_CHUNK = 50
# The share of true views that the sentinel must let pass, and what losing a true wording costs
# against 1 for letting another question through: nothing brings back an edit that was dropped.
_VIEWS_KEPT, _WORDING_COST = 0.98, 3.0


def calibrate_router(
    router: Router,
    stage: Stage,
    *,
    subjects: int,
    pictures: int,
    questions: int,
    draw: Draw = draw_view,
    notify: Notify | None = None,
) -> Router:
    """The same weights with thresholds and figures measured on `subjects` and `pictures` emblems.

    Figures are shares of right decisions: `*_kept` of true pairs that pass, `*_dropped` of others
    that do not; `false_fire_rate` the share of queries on unrelated pictures that fire any of
    `false_fire_edits` edits.
    """
    own, other, alike = _image_cosines(stage, pictures, draw, notify)
    tau = choose_tau(own)
    bank = RoutingBank.prepare(
        stage,
        range(subjects),
        split=SPLIT,
        questions=questions,
        draw=draw,
        notify=notify,
    )
    with torch.no_grad():
        pairs = compare(router, bank, torch.arange(len(bank)))
    others = pairs.same_picture & ~pairs.same_text
    gate = pairs.text.sigmoid()
    cut = choose_cut(gate[pairs.own].numpy(), gate[others].numpy(), wanted_cost=_WORDING_COST)
    rho = float(np.clip(cut, 0.05, 0.95))
    margin = float(np.quantile(pairs.visual[pairs.own].numpy(), 1.0 - _VIEWS_KEPT))
    alpha, beta = _mix(pairs)
    figures = {
        "tau_own_kept": float((own >= tau).mean()),
        "tau_other_dropped": float((other < tau).mean()),
        "tau_look_alike_dropped": float((alike < tau).mean()),
        "text_own_kept": float((gate[pairs.own] >= rho).float().mean()),
        "text_other_question_dropped": float((gate[others] < rho).float().mean()),
        "sentinel_own_kept": float((pairs.visual[pairs.own] > margin).float().mean()),
        "sentinel_look_alike_dropped": float(
            (pairs.visual[pairs.look_alike] <= margin).float().mean()
        ),
    }
    figures |= _outcomes(pairs, tau=tau, rho=rho, margin=margin)
    return router.with_figures(figures, tau=tau, rho=rho, margin=margin, alpha=alpha, beta=beta)


def _outcomes(pairs: Comparison, *, tau: float, rho: float, margin: float) -> dict[str, float]:
    """What all three tests together do."""
    fires = (pairs.image >= tau) & (pairs.text.sigmoid() >= rho) & (pairs.visual > margin)
    others = pairs.same_picture & ~pairs.same_text
    unrelated = ~pairs.same_subject
    any_fires = (fires & unrelated).any(1)
    return {
        "own_fires": float(fires[pairs.own].float().mean()),
        "look_alike_stays_quiet": float((~fires[pairs.look_alike]).float().mean()),
        "other_question_stays_quiet": float((~fires[others]).float().mean()),
        "false_fire_rate": float(any_fires.float().mean()),
        "false_fire_edits": float(fires.shape[1]),
    }


def _mix(pairs: Comparison) -> tuple[float, float]:
    """Each query has one own edit and one on the look-alike, in row order."""
    parts = (pairs.text, pairs.visual, pairs.image)
    own, rival = (tuple(part[mask] for part in parts) for mask in (pairs.own, pairs.look_alike))
    return choose_mix((own[0], own[1], own[2]), (rival[0], rival[1], rival[2]))


def _image_cosines(
    stage: Stage, pictures: int, draw: Draw, notify: Notify | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Cosines of image keys: same emblem, other emblems (all pairs), look-alikes."""
    first, second, alike = [], [], []
    for number in range(pictures):
        own, other = subject(number, SPLIT).pictures(2, draw)
        keys = [stage.backbone.compute_features(image).key for image in (*own, other[0])]
        first.append(keys[0])
        second.append(keys[1])
        alike.append(keys[2])
        if notify is not None and (number + 1) % _CHUNK == 0:
            notify("image keys", number + 1, pictures)
    edits, queries, twins = np.stack(first), np.stack(second), np.stack(alike)
    cosines = queries @ edits.T
    return (
        np.diagonal(cosines).copy(),
        cosines[~np.eye(pictures, dtype=bool)],
        (twins * edits).sum(1),
    )
