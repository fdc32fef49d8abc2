"""Names on the benchmark's command line, and the contenders they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from editing_core.editable_model import EditableModel
from editing_core.evaluation.contender import Contender
from editing_core.registry import BASELINES, EDITORS

UNEDITED = "unedited"
LIVEEDIT = "liveedit"
VISEDIT = "visedit"
FITTED = "fitted"
UNVERIFIED = "liveedit-unverified"
PAPER = "liveedit-paper"
ABLATIONS = ("no_soft_routing", "no_sentinel", "no_image_filter", "text_only_weights")
MEANINGS = {
    LIVEEDIT: "LiveEdit as served: verified, refined where needed, refused where it cannot take",
    VISEDIT: "VisEdit as served, by the same rules",
    FITTED: "experts fitted by gradient at edit time, no trained generator; by the same rules",
    UNVERIFIED: "liveedit, every edit taken as it comes",
    PAPER: "LiveEdit in the published form, unverified",
    "no_soft_routing": "liveedit-unverified, plain mean of what passes filter and sentinel",
    "no_sentinel": "liveedit-unverified without the vision sentinel",
    "no_image_filter": "liveedit-unverified without the search by picture",
    "text_only_weights": "liveedit-unverified with the published weights (text score only)",
}


def names() -> tuple[str, ...]:
    """Every contender but the unedited model, which is always there."""
    others = tuple(name for name in EDITORS if name not in MEANINGS)
    return (*MEANINGS, *others, *BASELINES)


def editors_for(chosen: Sequence[str]) -> tuple[str, ...]:
    """The editors that a model must load for these contenders."""
    needed = dict.fromkeys(name for name in chosen if name in EDITORS)
    if any(name not in BASELINES and name not in EDITORS for name in chosen) or not needed:
        needed[LIVEEDIT] = None
    return tuple(needed)


def contender(
    name: str,
    model: EditableModel,
    *,
    seed: int = 0,
    verify_every: int = 1,
    also: Mapping[str, str] | None = None,
) -> Contender:
    """Build one by name; `model` has what `editors_for` says.

    `also` are further names, each with the folder of the editor it stands for (see
    `trained_editors`). Raises `LookupError` naming the known ones, and what that raises.
    """
    # Here, because a baseline's module imports what only baselines need.
    from editing_core.evaluation.baseline_contender import BaselineContender
    from editing_core.evaluation.contenders import (
        SessionContender,
        Unedited,
        ablated,
        paper_form,
        trained,
    )

    if also and name in also:
        return trained(name, model, Path(also[name]))
    if name == UNEDITED:
        return Unedited(model)
    if name in ABLATIONS:
        return ablated(name, model)
    if name == PAPER:
        return paper_form(model)
    if name == UNVERIFIED:
        return SessionContender(name, model)
    if name in EDITORS:
        return SessionContender(
            name, model, editor=name, verify="strict", verify_every=verify_every
        )
    if name in BASELINES:
        return BaselineContender.named(name, model, seed=seed)
    raise LookupError(f"unknown contender {name!r}; known: {', '.join(names())}")
