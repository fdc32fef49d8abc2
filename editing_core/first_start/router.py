"""A router of frozen features, measured and calibrated: nothing is trained.

    statistics   from half of the shipped questions; they make keys and are never changed again
    thresholds   from the other half, and from pictures with their views and look-alikes

The rates to keep are the product's: with `EDITS` edits at most `MOST_FALSE_FIRES` of the queries
about unrelated pictures fire anything, at most `MOST_OTHER_QUESTIONS` of the other questions on an
edited picture do. Where the features cannot keep them, views and wordings are lost no further than
the floors below, and the log says what rate remains.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from editing_core.first_start.material import Material
from editing_core.first_start.questions import ShippedQuestion, for_calibration, for_statistics
from editing_core.routing.calibration import (
    any_of,
    choose_cut,
    choose_mix,
    choose_tau,
    fit_gate,
    tail_share,
)
from editing_core.routing.frozen_features import FrozenRouter

logger = logging.getLogger(__name__)

EDITS = 10_000
MOST_FALSE_FIRES = 0.005
MOST_OTHER_QUESTIONS = 0.01
# The share of true views kept where the rate allows it, and in any case.
_VIEWS_KEPT, _VIEWS_KEPT_AT_LEAST = 0.98, 0.90
_STEP = 0.001
# An edit's very words have cosine 1, give or take rounding, and must pass whatever else happens.
_HIGHEST_CUT = 0.98

Cosines = NDArray[np.float32]


def measure_router(material: Material) -> FrozenRouter:
    """Measure a backbone's statistics, then calibrate on them."""
    backbone = material.backbone
    router = FrozenRouter.measure(
        material.words(for_statistics()),
        layer=material.router_layer,
        image_key_model=backbone.image_key_model,
        backbone_fingerprint=backbone.fingerprint,
    ).to(backbone.device)
    return calibrate_frozen(router, material)


def calibrate_frozen(router: FrozenRouter, material: Material) -> FrozenRouter:
    """The same keys under thresholds and figures measured now.

    Figures are shares of right decisions, `*_kept` of true pairs that pass and `*_dropped` of
    others that do not. `false_fire_rate` is what `false_fire_edits` edits with the shipped
    questions would do to a query about an unrelated picture: the share of unrelated pairs above
    `tau` (the tail of `unrelated_pairs`, see `tail_share`) times that of question pairs which pass
    the gate. `false_pass_rate` is the same if every edit asked what the query asks.
    """
    texts = _text_cosines(router, material)
    images = _image_cosines(material.image_keys)
    slope, bias = fit_gate(texts.own, texts.other)
    cut = choose_cut(texts.own, texts.other)
    cut = max(cut, float(np.quantile(texts.other, 1.0 - MOST_OTHER_QUESTIONS)))
    cut = min(cut, _HIGHEST_CUT)
    asks_the_same = float((np.concatenate([texts.own, texts.other]) > cut).mean())
    tau = _tau(images, asks_the_same)
    share = tail_share(images.unrelated, tau)
    alpha, _ = choose_mix(_pair(images.own), _pair(images.look_alike), betas=(0.0,))
    figures = {
        "tau_own_kept": float((images.own >= tau).mean()),
        "tau_look_alike_dropped": float((images.look_alike < tau).mean()),
        "tau_other_dropped": 1.0 - share,
        "text_own_kept": float((texts.own > cut).mean()),
        "text_other_question_dropped": float((texts.other <= cut).mean()),
        "text_neighbour_dropped": float((texts.neighbour <= cut).mean()),
        "false_fire_rate": any_of(EDITS, share * asks_the_same),
        "false_fire_edits": float(EDITS),
        "false_pass_rate": any_of(EDITS, share),
        "unrelated_pairs": float(len(images.unrelated)),
    }
    _warn(figures)
    rho = float(torch.tensor(slope * cut + bias).sigmoid())
    changes: dict[str, Any] = {"tau": tau, "rho": rho, "alpha": alpha, "beta": 0.0}
    return router.with_figures(figures, slope=slope, bias=bias, **changes)


@dataclass(frozen=True)
class _Texts:
    """Cosines of wordings of one question, of two questions, and of two of one family."""

    own: Cosines
    other: Cosines
    neighbour: Cosines


@dataclass(frozen=True)
class _Images:
    """Cosines of two views of one thing, of a thing and its look-alike, and of two things.

    The first two go by pairs: `look_alike[i]` is the edit's picture of `own[i]` exchanged.
    """

    own: Cosines
    look_alike: Cosines
    unrelated: Cosines


def _text_cosines(router: FrozenRouter, material: Material) -> _Texts:
    questions = for_calibration()
    words = material.words(questions)
    keys = torch.stack([router.text_key(each) for group in words for each in group])
    cosines = (keys @ keys.T).cpu().numpy()
    number = np.repeat(np.arange(len(questions)), [len(group) for group in words])
    same = number[:, None] == number[None]
    near = _neighbours(questions)[number][:, number]
    return _Texts(
        own=cosines[same & ~np.eye(len(keys), dtype=bool)],
        other=cosines[~same],
        neighbour=cosines[near],
    )


def _neighbours(questions: tuple[ShippedQuestion, ...]) -> NDArray[np.bool_]:
    families = np.array([question.family for question in questions])
    same: NDArray[np.bool_] = families[:, None] == families[None]
    return same & ~np.eye(len(questions), dtype=bool)


def _image_cosines(keys: NDArray[np.float32]) -> _Images:
    """Of `[subjects, 2, views, key]`."""
    edits, queries = keys[:, :, 0], keys[:, :, 1]
    own = (edits * queries).sum(-1)
    look_alike = (edits[:, ::-1] * queries).sum(-1)
    flat = keys.reshape(len(keys), -1, keys.shape[-1])
    # Every thing with every later one, so that no pair is counted twice.
    unrelated = [
        (flat[start:stop].reshape(-1, keys.shape[-1]) @ flat[stop:].reshape(-1, keys.shape[-1]).T)
        for start, stop in pairwise(range(len(keys)))
    ]
    return _Images(own.ravel(), look_alike.ravel(), np.concatenate([u.ravel() for u in unrelated]))


def _tau(images: _Images, asks_the_same: float) -> float:
    """As many views as are wanted; fewer, down to the floor, where too many others pass."""
    tau = choose_tau(images.own, keep=_VIEWS_KEPT)
    floor = choose_tau(images.own, keep=_VIEWS_KEPT_AT_LEAST, slack=_STEP)
    while tau < floor:
        if any_of(EDITS, tail_share(images.unrelated, tau) * asks_the_same) <= MOST_FALSE_FIRES:
            return tau
        tau = round(tau + _STEP, 4)
    return floor


def _pair(image: Cosines) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries that differ in their picture alone, for `choose_mix`."""
    nothing = torch.zeros(len(image))
    return nothing, nothing, torch.from_numpy(image)


def _warn(figures: dict[str, float]) -> None:
    others = 1.0 - figures["text_other_question_dropped"]
    if figures["false_fire_rate"] > MOST_FALSE_FIRES or others > MOST_OTHER_QUESTIONS + 1e-3:
        logger.warning(
            "these frozen features do not keep the stated rates: with %d edits %.2f %% of "
            "unrelated queries would fire (at most %.2f wanted), and %.2f %% of other questions "
            "(at most %.2f wanted); a trained router does better (errata train --router)",
            EDITS,
            100 * figures["false_fire_rate"],
            100 * MOST_FALSE_FIRES,
            100 * others,
            100 * MOST_OTHER_QUESTIONS,
        )
