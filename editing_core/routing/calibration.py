"""Thresholds from measured scores. Pure functions of arrays, so any backbone can be calibrated.

    tau    from image keys alone: as high as the true views allow
    rho    where dropping true questions and keeping other ones err least together
    margin where losing true views and taking look-alikes for them err least together
    alpha, beta   how much the picture counts among survivors that ask the same
    slope, bias   of a gate that was not learned: a logistic line through cosines
    rates         what thousands of edits would let through, from the tail of a sample

Use emblems of a split of their own, look-alikes among them, and the rounded weights that are
saved. Keeping comes first in `tau`: what it drops, no later test can bring back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]

ALPHAS = (0.0, 5.0, 10.0, 20.0, 40.0)
BETAS = (0.0, 0.5, 1.0, 2.0)


def choose_tau(own: Array, *, keep: float = 0.997, slack: float = 0.01) -> float:
    """The cosine that a share `keep` of true views reach, less `slack` for the few samples.

    Args:
        own: cosines of the image keys of two views of the same thing, `[pairs]`.
    """
    return round(float(np.quantile(own, 1.0 - keep)) - slack, 4)


def choose_cut(
    wanted: Array, unwanted: Array, *, wanted_cost: float = 1.0, candidates: int = 400
) -> float:
    """The score above which the costs of losing the wanted and keeping the unwanted are least.

    `wanted_cost` is what losing one of the wanted costs, against 1 for keeping an unwanted one.
    Of equally good scores the middle one, so that neither side stands at the edge.
    """
    scores = np.concatenate([wanted, unwanted])
    cuts = np.quantile(scores, np.linspace(0.0, 1.0, candidates))
    cuts = np.unique(np.concatenate([cuts, [0.5 * (wanted.min() + unwanted.max())]]))
    lost = (wanted[None] <= cuts[:, None]).mean(1)
    kept = (unwanted[None] > cuts[:, None]).mean(1)
    cost = wanted_cost * lost + kept
    best = np.flatnonzero(cost <= cost.min() + 1e-9)
    return float(cuts[best].mean()) if _is_run(best) else float(cuts[best[len(best) // 2]])


def choose_mix(
    own: tuple[Tensor, Tensor, Tensor],
    rival: tuple[Tensor, Tensor, Tensor],
    *,
    alphas: Sequence[float] = ALPHAS,
    betas: Sequence[float] = BETAS,
) -> tuple[float, float]:
    """`alpha` and `beta` under which the own edit outweighs its look-alike's by most.

    Args:
        own, rival: textual score, visual score and image cosine of a query with its own edit and
            with the same question's edit on the look-alike, `[queries]` each.

    Returns:
        The pair with the least mean cross entropy; of nearly equal ones the smallest, since large
        factors only sharpen what is already decided.
    """
    best, chosen = np.inf, (0.0, 0.0)
    for alpha in alphas:
        for beta in betas:
            gap = own[0] - rival[0] + alpha * (own[2] - rival[2]) + beta * (own[1] - rival[1])
            loss = float(torch.nn.functional.softplus(-gap).mean())
            if loss < best - 1e-3:
                best, chosen = loss, (alpha, beta)
    return chosen


def fit_gate(wanted: Array, unwanted: Array, *, steps: int = 50) -> tuple[float, float]:
    """Slope and bias of the logistic line between two sets of cosines, as if equally many.

    Newton's method with a small penalty on the slope, so that cosines which part cleanly still
    give a finite one. The slope is never negative.
    """
    scores = np.concatenate([wanted, unwanted]).astype(np.float64)
    label = np.repeat([1.0, 0.0], [len(wanted), len(unwanted)])
    share = np.where(label > 0, 0.5 / len(wanted), 0.5 / len(unwanted))
    centre, spread = float(scores.mean()), float(scores.std()) + 1e-6
    design = np.stack([(scores - centre) / spread, np.ones_like(scores)], axis=1)
    penalty = np.diag([1e-5, 1e-6])
    line = np.zeros(2)
    for _ in range(steps):
        said = 1.0 / (1.0 + np.exp(-np.clip(design @ line, -30.0, 30.0)))
        slope = design.T @ (share * (said - label)) + penalty @ line
        bend = (design * (share * said * (1.0 - said))[:, None]).T @ design + penalty
        step = np.linalg.solve(bend, slope)
        line -= step / max(1.0, float(np.abs(step).max()))
    factor = max(float(line[0]), 0.0) / spread
    return factor, float(line[1]) - factor * centre


def tail_share(sample: Array, cut: float, *, tail: float = 0.01) -> float:
    """The share of pairs with a cosine of at least `cut`, also where the sample is too small.

    Counted while at least ten of the sample lie there; above, an exponential tail is laid through
    the highest `tail` of it (the peaks over a threshold of extreme value theory with shape 0:
    cosines end at 1, so their true tail is lighter and this rather too high than too low).
    """
    above = int((sample >= cut).sum())
    if above >= 10:
        return above / len(sample)
    start = float(np.quantile(sample, 1.0 - tail))
    excess = sample[sample > start] - start
    if not len(excess):
        return above / len(sample)
    return float(len(excess) / len(sample) * np.exp(-(cut - start) / max(excess.mean(), 1e-6)))


def any_of(edits: int, share: float) -> float:
    """The share of queries that at least one of `edits` passes, each with chance `share`.

    Queries that are nearer to everything than others only make the true share smaller.
    """
    return float(-np.expm1(edits * np.log1p(-min(share, 1.0 - 1e-12))))


def _is_run(places: NDArray[np.int64]) -> bool:
    return bool(places[-1] - places[0] + 1 == len(places))
