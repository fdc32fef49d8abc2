"""The router without its text: whatever passes the image filter and the sentinel counts equally.

LiveEdit's own ablation (its Table 2, "without soft routing").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from editing_core.routing.router import Memory, Router
from editing_core.routing.wordings import TextMatch
from editing_core.states import RoutingStates
from editing_core.types import RoutingDecision


class PlainMean(Router):
    """See the module's docstring."""

    def route(
        self,
        query: RoutingStates,
        survivors: Sequence[tuple[str, float]],
        snapshot: Memory,
        *,
        match: TextMatch | None = None,
    ) -> RoutingDecision:
        """As the router decides, but the text neither drops nor weighs."""
        del match
        found = super().route(query, survivors, snapshot).candidates
        seen = [c for c in found if c.outcome != "below_sentinel"]
        rest = tuple(c for c in found if c.outcome == "below_sentinel")
        mean = [replace(c, weight=1.0 / len(seen), outcome="applied") for c in seen]
        return RoutingDecision(candidates=(*mean, *rest))

    def refuse(self, survivors: Sequence[tuple[str, float]], match: TextMatch) -> None:
        """No text is refused."""


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
