"""Calibration repeated, for a router of any kind: new thresholds, the same keys."""

from __future__ import annotations

from editing_core.backbones.base import Backbone
from editing_core.first_start.material import Material
from editing_core.first_start.router import calibrate_frozen
from editing_core.routing.base import RouterBase
from editing_core.routing.frozen_features import FrozenRouter
from editing_core.routing.router import Router
from editing_core.training.calibrate import calibrate_router
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.recipes import RouterRecipe
from editing_core.training.scenes import Stage
from editing_core.types import Notify


def recalibrate(
    router: RouterBase, backbone: Backbone, *, notify: Notify | None = None
) -> RouterBase:
    """The router under thresholds measured now; its fingerprint stays what it was.

    A trained one is calibrated as at the end of its training, on emblems with look-alikes.

    Raises `TypeError` on a router that says no way to calibrate it, and `ValueError` for a trained
    one on an accelerator: what trains it runs on the CPU.
    """
    if isinstance(router, FrozenRouter):
        return calibrate_frozen(router, Material(backbone, notify=notify))
    if not isinstance(router, Router):
        raise TypeError(f"{type(router).__name__} cannot be calibrated again")
    if backbone.device.type != "cpu":
        raise ValueError("a trained router is calibrated on the CPU: add --device cpu")
    recipe = RouterRecipe(layer=router.layer)
    frozen = FrozenDecoder(backbone.decoder, backbone.output_head, layer=router.layer)
    return calibrate_router(
        router,
        Stage(backbone, frozen, all_blocks=False),
        subjects=recipe.calibration_subjects,
        pictures=recipe.calibration_pictures,
        questions=recipe.questions,
        notify=notify,
    )
