"""What is learned for the eyes: a head that tells pictures apart, and gates beside a CLIP.

The head: two looks of a picture are alike, looks of two pictures are not, those of one family
above all. Symmetric InfoNCE (van den Oord et al., 2018) puts the own picture first; a pairwise
sigmoid (Zhai et al., 2023) about one fixed cosine makes one threshold serve all kinds of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.eyes.eyes import Gate, Head
from editing_core.objectives.base import LossTerms
from editing_core.training.eye_look import Looks

SAME_COLOURS = 0.02
"""Mean distance of colour grids below which two files show one picture."""


@dataclass(frozen=True, slots=True)
class EyesRecipe:
    """All that decides the training beside the pictures, the length and the seed."""

    hidden: int = 256
    dim: int = 128
    gate_hidden: int = 32
    judge_pictures: int = 1344
    judge_pairs: int = 16_384
    judge_wide: int = 32
    judge_deep: int = 48
    judge_hidden: int = 64
    families: int = 80
    of_family: int = 4
    temperature: float = 0.06
    scale: float = 16.0
    middle: float = 0.55
    dropped: float = 0.3


class HeadTask:
    """See the module's docstring. A step's pictures are whole families, as far as they go."""

    name = "eyes-head"

    def __init__(self, looks: Looks, recipe: EyesRecipe, *, colours: int, seed: int) -> None:
        self._looks = looks
        self._recipe = recipe
        self._colours = colours
        self._seed = seed
        features = looks.features[:, 0].float()
        self.head = Head(features.shape[1], hidden=recipe.hidden, dim=recipe.dim)
        self.head.mean.data = features.mean(0)
        self.head.scale.data = 1.0 / (features.std(0) + 0.05)
        self.module: nn.Module = self.head
        order = torch.argsort(looks.families, stable=True)
        _, counts = torch.unique_consecutive(looks.families[order], return_counts=True)
        self._members = [rows.numpy() for rows in torch.split(order, counts.tolist())]

    def loss(self, number: int, /) -> LossTerms:
        """Of batch `number`."""
        recipe, rng = self._recipe, np.random.default_rng([self._seed, 3, number])
        count = min(recipe.families, len(self._members))
        chosen = rng.choice(len(self._members), count, replace=False)
        rows = np.concatenate(
            [rng.permutation(self._members[i])[: recipe.of_family] for i in chosen]
        )
        first, second = self._two_looks(torch.from_numpy(rows), rng)
        cosines = first @ second.T
        own = torch.eye(len(rows), dtype=torch.bool)
        other = ~own & ~self._same(torch.from_numpy(rows))
        logits = (cosines / recipe.temperature).masked_fill(~own & ~other, -1e4)
        targets = torch.arange(len(rows))
        contrast = F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)
        scores = recipe.scale * (cosines - recipe.middle)
        # The nearest of the others count: the rest are told apart from the start.
        worst = scores.masked_fill(~other, -1e4).topk(8, dim=1).values
        lost, taken = F.softplus(-scores[own]).mean(), F.softplus(worst).mean()
        return LossTerms({"contrast": 0.5 * contrast, "own": lost, "other": taken})

    def _two_looks(self, rows: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Keys of two different looks of each picture."""
        looks = self._looks.features
        count = looks.shape[1]
        one = rng.integers(0, count, len(rows))
        two = (one + rng.integers(1, count, len(rows))) % count
        keys = []
        for which in (one, two):
            features = looks[rows, torch.from_numpy(which)].float()
            generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
            kept = torch.rand(features.shape, generator=generator) >= self._recipe.dropped
            keys.append(self.head(torch.where(kept, features, self.head.mean)))
        return keys[0], keys[1]

    def _same(self, rows: Tensor) -> Tensor:
        colours = self._looks.features[rows, 0, -self._colours :].float()
        return torch.cdist(colours, colours, p=1) / self._colours < SAME_COLOURS


class GateTask:
    """What a CLIP, or the network, sees of the CLIP's own world against all other pictures."""

    name = "eyes-gate"

    def __init__(self, known: Tensor, foreign: Tensor, recipe: EyesRecipe, *, seed: int) -> None:
        self._known, self._foreign, self._seed = known, foreign, seed
        self.gate = Gate(known.shape[1], hidden=recipe.gate_hidden)
        self.module: nn.Module = self.gate
        both = torch.cat([known, foreign])
        self.gate.mean.data = both.mean(0)
        self.gate.scale.data = 1.0 / (both.std(0) + 1e-3)

    def loss(self, number: int, /) -> LossTerms:
        """Of batch `number`: as many of both."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        known, foreign = (
            keys[torch.randint(len(keys), (256,), generator=generator)]
            for keys in (self._known, self._foreign)
        )
        lost = F.softplus(-self.gate(known)).mean()
        taken = F.softplus(self.gate(foreign)).mean()
        return LossTerms({"known": lost, "foreign": taken})
