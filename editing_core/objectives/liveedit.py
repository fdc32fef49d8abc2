"""LiveEdit's editing loss (section 3.1 of the method, equations 9 to 11).

    l = mean over rows of  l_rel + l_gen     rows in scope: -log f_E(target)
                         + l_loc             rows out of scope: KL( base || edited )

The experts of other edits are mixed into every row with router weights, as they are in service.
The routing losses train the router and live in `routing`: router and editor are apart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from editing_core.objectives.base import IN_SCOPE, LossTerms, Objective, ProbeBatch, Residual
from editing_core.objectives.losses import kl_base_to_edited, sequence_nll, token_accuracy


class LiveEditObjective(Objective):
    """Reliability, both generalities and locality, each a mean over its own rows."""

    name = "liveedit"

    def __init__(self, *, locality_weight: float = 1.0) -> None:
        self.locality_weight = locality_weight

    @property
    def needs_locality(self) -> bool:
        """Without weight, rows out of scope would cost their pass and count for nothing."""
        return self.locality_weight > 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Objective.settings`."""
        return {"locality_weight": self.locality_weight}

    def loss(self, batch: ProbeBatch, residual: Residual) -> LossTerms:
        """One edited forward; see `Objective.loss`."""
        logits = batch.edited_logits(residual)
        in_scope = torch.tensor([role in IN_SCOPE for role in batch.roles])
        terms: dict[str, Tensor] = {}
        figures: dict[str, float] = {}
        for role in IN_SCOPE:
            rows = torch.tensor([r == role for r in batch.roles])
            if bool(rows.any()):
                terms[role] = sequence_nll(logits[rows], batch.targets[rows]).mean()
                figures[f"{role}_exact"] = token_accuracy(logits[rows], batch.targets[rows])[1]
        if bool((~in_scope).any()):
            away = ~in_scope
            divergence = kl_base_to_edited(
                logits[away], batch.base_logits[away], batch.targets[away]
            )
            terms["locality"] = self.locality_weight * divergence.mean()
        return LossTerms(terms=terms, figures=figures)
