"""The router without its text: whatever passes the image filter and the sentinel counts equally.

LiveEdit's own ablation (its Table 2, "without soft routing").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from editing_core.routing.base import Query
from editing_core.routing.router import Router
from editing_core.routing.wordings import TextMatch
from editing_core.types import Candidate, RoutingDecision

_OTHER_PICTURES = ("another_picture", "below_sentinel")


class PlainMean(Router):
    """See the module's docstring."""

    def route_each(self, queries: Sequence[Query]) -> list[RoutingDecision]:
        """As the router decides, but the text neither drops nor weighs."""
        without = [replace(query, match=None) for query in queries]
        return [_equally(decision.candidates) for decision in super().route_each(without)]

    def refuse(
        self,
        survivors: Sequence[tuple[str, float]],
        match: TextMatch,
        *,
        another: Tensor | None = None,
    ) -> None:
        """No text is refused."""


def _equally(found: Sequence[Candidate]) -> RoutingDecision:
    """Whatever passed by its picture acts, all alike."""
    seen = [c for c in found if c.outcome not in _OTHER_PICTURES]
    rest = tuple(c for c in found if c.outcome in _OTHER_PICTURES)
    mean = [replace(c, weight=1.0 / len(seen), outcome="applied") for c in seen]
    return RoutingDecision(candidates=(*mean, *rest))


def plain_mean(router: Router) -> PlainMean:
    """It, with the weights and thresholds of `router`."""
    made = PlainMean(
        router.config,
        thresholds=router.thresholds,
        figures=router.figures,
        backbone_fingerprint=router.backbone_fingerprint,
    )
    made.edit_side, made.query_side = router.edit_side, router.query_side
    made.sentinel, made.scales = router.sentinel, router.scales
    made.eval()
    return made
