"""The router where none is trained: frozen features, freed of what shipped questions share.

    image key    the backbone's, and the only thing that tells pictures apart
    textual key  the user's words without the picture, at one layer: each row scaled to one length,
                 pooled by their mean, standardised, freed of how a question is worded, normalised
    visual key   none

    s_p = slope <psi, psi_hat> + bias,   the best of the edit's wordings

Mean, spread and wording directions are measured once for a backbone (`first_start`). Raw states of
different questions have cosines near 1: they share far more than they differ by. And what differs
between wordings of the *same* question should not count: those directions are damped, as
within-class covariance normalisation does (Hatch, Kajarekar and Stolcke, Interspeech 2006), here in
the span of the shipped wordings, with the shrinkage below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from editing_core.experts.weights import round_weights
from editing_core.routing.base import RouterBase
from editing_core.routing.decision import Scores, Thresholds
from editing_core.states import RoutingStates
from editing_core.types import RoutingKey

# Of the mean variance between wordings: directions with much less than this are left alone.
_SHRINKAGE = 0.06
# Of the median spread: below it a number is constant, and dividing by it would make noise of it.
_LEAST_SPREAD = 0.01


@dataclass(frozen=True, slots=True)
class FrozenConfig:
    """Where it reads, and in how many directions wordings differ. Part of its fingerprint."""

    hidden: int
    layer: int
    directions: int
    image_key_model: str


@dataclass(frozen=True, slots=True)
class FrozenThresholds(Thresholds):
    """Also the gate's line, which is fitted and not learned: no part of the fingerprint."""

    slope: float = 20.0
    bias: float = -10.0


class FrozenRouter(RouterBase):
    """Statistics of shipped questions and calibrated thresholds; see the module's docstring."""

    kind: ClassVar[str] = "frozen_features"
    config_type = FrozenConfig
    thresholds_type = FrozenThresholds
    thresholds: FrozenThresholds
    config: FrozenConfig
    mean: Tensor
    spread: Tensor
    directions: Tensor
    damping: Tensor

    def build(self) -> None:
        """See `RouterBase.build`."""
        config = self.config
        self.register_buffer("mean", torch.zeros(config.hidden))
        self.register_buffer("spread", torch.ones(config.hidden))
        self.register_buffer("directions", torch.zeros(config.directions, config.hidden))
        self.register_buffer("damping", torch.zeros(config.directions))

    @classmethod
    def measure(
        cls,
        questions: Sequence[Sequence[Tensor]],
        *,
        layer: int,
        image_key_model: str,
        backbone_fingerprint: str,
    ) -> FrozenRouter:
        """Statistics of questions, each in several wordings, `[words, hidden]` a wording.

        The numbers are rounded as they will be stored.
        """
        groups = [torch.stack([_pooled(words) for words in wordings]) for wordings in questions]
        pooled = torch.cat(groups).cpu()
        mean, spread = pooled.mean(0), pooled.std(0)
        spread = spread.clamp_min(max(_LEAST_SPREAD * float(spread.median()), 1e-4))
        apart = torch.cat([(g - g.mean(0)).cpu() / spread for g in groups])
        # A question of n wordings has n - 1 directions, so the last singular values are nothing.
        rank = min(len(pooled) - len(groups), pooled.shape[1])
        _, found, directions = torch.linalg.svd(apart, full_matrices=False)
        variance = found[:rank].square() / len(pooled)
        shrinkage = _SHRINKAGE * variance.mean()
        damping = 1.0 - (shrinkage / (shrinkage + variance).clamp_min(1e-12)).sqrt()
        made = cls(
            FrozenConfig(pooled.shape[1], layer, rank, image_key_model),
            backbone_fingerprint=backbone_fingerprint,
        )
        made.mean.copy_(mean)
        made.spread.copy_(spread)
        made.directions.copy_(directions[:rank])
        made.damping.copy_(damping)
        round_weights(made)
        return made.eval()

    @torch.no_grad()
    def text_key(self, words: Tensor) -> Tensor:
        """`words [words, hidden]` -> the textual key of one wording, `[hidden]`, of length 1."""
        key = (_pooled(words) - self.mean) / self.spread
        key = key - (self.damping * (self.directions @ key)) @ self.directions
        return F.normalize(key, dim=0)

    @torch.no_grad()
    def keys(
        self,
        states: RoutingStates,
        image_key: NDArray[np.float32],
        *,
        rephrases: Sequence[Tensor] = (),
    ) -> RoutingKey:
        """One textual key for each wording: nothing was learned that could stand for others."""
        wordings = [self.text_key(words) for words in (states.words, *rephrases)]
        return RoutingKey(
            image=np.ascontiguousarray(image_key, dtype=np.float32),
            text=torch.stack(wordings).cpu().numpy(),
            visual=np.zeros((0, 0), dtype=np.float32),
        )

    @torch.no_grad()
    def scores(
        self, query: RoutingStates, keys: Sequence[RoutingKey], image_cosines: Tensor
    ) -> Scores:
        """See the module's docstring."""
        del image_cosines
        asked = self.text_key(query.words)
        texts = torch.from_numpy(np.concatenate([key.text for key in keys])).to(asked.device)
        lengths = torch.tensor([len(key.text) for key in keys], device=asked.device)
        best = torch.segment_reduce(texts @ asked, "max", lengths=lengths)
        return Scores(text=self.gate_score(best))

    def gate_score(self, cosines: Tensor) -> Tensor:
        """`s_p` of cosines of textual keys."""
        return self.thresholds.slope * cosines + self.thresholds.bias


def _pooled(words: Tensor) -> Tensor:
    """The mean of the rows, each of length sqrt(hidden): a few rows of some models are a thousand
    times longer than the rest, and would be all that is left of a mean."""
    rows = F.normalize(words.float(), dim=-1)
    return rows.mean(0) * float(words.shape[-1] ** 0.5)
