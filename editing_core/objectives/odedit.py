"""ODEdit (arXiv 2601.19700) as an objective: an edit must hold in every environment alike.

    environment   rows                            risk
    in            the edit itself                 R_rel: -log p(target)
    semantic      rephrases and other views       R_gen: MMD^2 of features, in against semantic;
                                                  beside it, -log p(target) of each row
    out           every other role                R_loc: KL( edited || base )

    total = R_rel + R_gen + R_loc + lambda * ( mean over environments of |slope| )^2

The slope of an environment is the derivative of its risk in one scalar on the last hidden states
(see `invariance`), lambda is learned against the editor (see `penalty_weight`). Rows come from
whoever makes the batch: a trainer words and draws them itself, from wordings and splits that no
evaluation asks; at edit time `semantic` are the rephrases that came with the edit and `out` the
answers that it disturbed.

The paper leaves open, and we chose: the feature of a row is the mean of its last hidden states
over the answer's tokens; four bandwidths, the median heuristic times 0.5, 1, 2 and 4; the cap, the
annealing and the power of lambda. The likelihood of each semantic row (`paired`) is no part of the
paper. It is on by default, because MMD compares sets: it can vanish while no rephrase of any one
edit gets its answer. The cap is low because the penalty resists learning: a likelihood's slope is
0 where nothing is preferred, falls as the target becomes likelier than the rest, and returns to 0
only where it is certain, so a large lambda holds the editor between the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from editing_core.objectives.base import LossTerms, Objective, ProbeBatch, Residual
from editing_core.objectives.invariance import (
    Variation,
    kl_base_slope,
    kl_edited_slope,
    mmd_slope,
    nll_slope,
    total_variation,
)
from editing_core.objectives.losses import (
    kl_base_to_edited,
    kl_edited_to_base,
    mean_over_tokens,
    median_bandwidths,
    mmd,
    sequence_nll,
    token_accuracy,
)
from editing_core.objectives.penalty_weight import PenaltyWeight

Environment = Literal["in", "semantic", "out"]
_ENVIRONMENTS: Mapping[str, Environment] = {
    "edit": "in",
    "rephrase": "semantic",
    "view": "semantic",
}


def environment_of(role: str) -> Environment:
    """Where a row with this role belongs; whatever is not in scope is out of it."""
    return _ENVIRONMENTS.get(role, "out")


@dataclass(frozen=True, slots=True)
class ODEditSettings:
    """Weights of the terms, 0 drops one; how locality and the penalty are measured; lambda.

    `fixed_lambda` None means learned; 0 means no penalty. `power` must be above 1.
    """

    rel: float = 1.0
    paired: float = 1.0
    gen: float = 1.0
    loc: float = 1.0
    kl: Literal["edited_first", "base_first"] = "edited_first"
    bandwidths: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
    variation: Variation = "l1"
    fixed_lambda: float | None = None
    cap: float = 1.0
    power: float = 1.5
    anneal_steps: int = 200
    seed: int = 7

    def __post_init__(self) -> None:
        if self.kl not in ("edited_first", "base_first"):
            raise ValueError(f"kl is edited_first or base_first, not {self.kl!r}")
        if self.variation not in ("l1", "l2"):
            raise ValueError(f"variation is l1 or l2, not {self.variation!r}")
        if self.power <= 1.0:
            raise ValueError(f"power must be above 1, or lambda need not settle: {self.power}")
        if not self.bandwidths:
            raise ValueError("give at least one bandwidth")


class ODEdit(Objective):
    """See the module's docstring. Settings are those of `ODEditSettings`, by name.

    Raises `TypeError` on a setting that does not exist, `ValueError` on one out of range.
    """

    name = "odedit"

    def __init__(self, **settings: Any) -> None:
        self._settings = made = ODEditSettings(**settings)
        self._weight: PenaltyWeight | None = None
        if made.fixed_lambda != 0.0:
            self._weight = PenaltyWeight(
                fixed=made.fixed_lambda,
                cap=made.cap,
                power=made.power,
                anneal_steps=made.anneal_steps,
                seed=made.seed,
            )

    @classmethod
    def at_edit_time(cls) -> Self:
        """The penalty counts from the first step on: there is nothing to settle."""
        return cls(anneal_steps=0)

    @property
    def needs_locality(self) -> bool:
        """Without `loc` there is no environment out."""
        return self._settings.loc > 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `Objective.settings`."""
        return {**asdict(self._settings), "bandwidths": list(self._settings.bandwidths)}

    @property
    def state(self) -> nn.Module | None:
        """The perceptron behind lambda, and how many steps were made."""
        return self._weight

    def attach(self, parameters: Sequence[Tensor]) -> None:
        """See `Objective.attach`."""
        if self._weight is not None:
            self._weight.attach(parameters)

    def after_step(self) -> None:
        """The dual step that follows every primal one."""
        if self._weight is not None:
            self._weight.after_step()

    def loss(self, batch: ProbeBatch, residual: Residual) -> LossTerms:
        """One edited forward; see `Objective.loss`. `figures` tell lambda, variation and slopes."""
        hidden = batch.edited_hidden(residual)
        risks = _Risks(batch, hidden, self._settings)
        terms, slopes = dict(risks.terms()), risks.slopes()
        variation = total_variation(list(slopes.values()), self._settings.variation)
        figures = {f"slope_{name}": float(slope.detach()) for name, slope in slopes.items()}
        figures |= risks.exact()
        figures["variation"] = float(variation.detach())
        figures["lambda"] = 0.0
        if self._weight is not None:
            weight = self._weight()
            terms["penalty"] = weight * variation
            figures["lambda"] = float(weight.detach())
        return LossTerms(terms=terms, figures=figures)


class _Risks:
    """The weighted risks of one batch, by term, and their slopes, by environment."""

    def __init__(self, batch: ProbeBatch, hidden: Tensor, settings: ODEditSettings) -> None:
        self._batch = batch
        self._settings = settings
        self._logits = batch.head(hidden)
        self._features = mean_over_tokens(hidden, batch.targets)
        found = [environment_of(role) for role in batch.roles]
        self._rows: dict[str, Tensor] = {
            name: torch.tensor([e == name for e in found], device=hidden.device)
            for name in dict.fromkeys(found)
        }
        self._bandwidths: Tensor | None = None
        if settings.gen > 0 and self._rows.keys() >= {"in", "semantic"}:
            scope = self._rows["in"] | self._rows["semantic"]
            self._bandwidths = median_bandwidths(self._features[scope], settings.bandwidths)

    def terms(self) -> Mapping[str, Tensor]:
        """Each risk, already weighted; those without rows or without weight are left out."""
        settings, found = self._settings, {}
        if self._has("in", settings.rel):
            found["reliability"] = settings.rel * sequence_nll(*self._answers("in")).mean()
        if self._has("semantic", settings.paired):
            found["paired"] = settings.paired * sequence_nll(*self._answers("semantic")).mean()
        if self._bandwidths is not None:
            found["mmd"] = settings.gen * mmd(*self._sets(), self._bandwidths)
        if self._has("out", settings.loc):
            divergence = kl_edited_to_base if self._is_edited_first else kl_base_to_edited
            found["locality"] = settings.loc * divergence(*self._kept()).mean()
        return found

    def slopes(self) -> Mapping[str, Tensor]:
        """The slope of each environment's whole risk."""
        settings, found = self._settings, {}
        if self._has("in", settings.rel):
            found["in"] = settings.rel * nll_slope(*self._answers("in")).mean()
        semantic = []
        if self._has("semantic", settings.paired):
            semantic.append(settings.paired * nll_slope(*self._answers("semantic")).mean())
        if self._bandwidths is not None:
            semantic.append(settings.gen * mmd_slope(*self._sets(), self._bandwidths))
        if semantic:
            found["semantic"] = torch.stack(semantic).sum()
        if self._has("out", settings.loc):
            slope = kl_edited_slope if self._is_edited_first else kl_base_slope
            found["out"] = settings.loc * slope(*self._kept()).mean()
        return found

    def exact(self) -> Mapping[str, float]:
        """Share of rows in scope, by role, whose every token is the arg max."""
        batch, found = self._batch, {}
        for role in dict.fromkeys(batch.roles):
            if environment_of(role) != "out":
                rows = torch.tensor([r == role for r in batch.roles], device=self._logits.device)
                right = token_accuracy(self._logits[rows], batch.targets[rows])
                found[f"{role}_exact"] = right[1]
        return found

    @property
    def _is_edited_first(self) -> bool:
        return self._settings.kl == "edited_first"

    def _has(self, environment: Environment, weight: float) -> bool:
        return weight > 0 and environment in self._rows

    def _answers(self, environment: Environment) -> tuple[Tensor, Tensor]:
        rows = self._rows[environment]
        return self._logits[rows], self._batch.targets[rows]

    def _kept(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._rows["out"]
        return self._logits[rows], self._batch.base_logits[rows], self._batch.targets[rows]

    def _sets(self) -> tuple[Tensor, Tensor]:
        return self._features[self._rows["in"]], self._features[self._rows["semantic"]]


class SameData(ODEdit):
    """The control: ODEdit's rows, likelihoods and KL, without MMD and without penalty.

    What ODEdit gains over it is ODEdit's; what it gains over another objective is its data's.
    """

    name = "same_data"

    def __init__(self, **settings: Any) -> None:
        super().__init__(gen=0.0, fixed_lambda=0.0, **settings)
