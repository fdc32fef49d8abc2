"""What the judge learns from: pairs that are one picture, and pairs that only look alike.

    the same    two looks of a picture
    another     a near picture of it; one of its family; one whose key is near among all pictures

The nearest by key are what the judge is asked about in service. Pairs are drawn and laid side by
side once; what is learned is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from editing_core.eyes.eyes import Head
from editing_core.eyes.features import COLOURS
from editing_core.eyes.judge import Judge, differences
from editing_core.eyes.sketch import Sketcher
from editing_core.objectives.base import LossTerms
from editing_core.training.eye_look import Looks
from editing_core.training.eye_near import NEAR
from editing_core.training.eye_tasks import SAME_COLOURS, EyesRecipe
from editing_core.training.eye_views import CHANGES

_BATCH = 192
_SHARES = {"same": 0.42, "near": 0.26, "family": 0.1, "nearest": 0.22}
_AT_ONCE = 64
_LOST = 0.02
"""The share of views that pass by their keys and that the judge may drop, where calibrated."""
_NEAREST = 24
"""How many neighbours by key a picture's rival is drawn from."""


class JudgeTask:
    """See the module's docstring. `keys` `[pictures, 1 + views, dim]` are the trained head's."""

    name = "eyes-judge"

    def __init__(
        self,
        looks: Looks,
        keys: Tensor,
        sketcher: Sketcher,
        recipe: EyesRecipe,
        *,
        seed: int,
    ) -> None:
        self._looks, self._sketcher, self._seed = looks, sketcher, seed
        self._views = keys.shape[1]
        self.judge = Judge(
            wide=recipe.judge_wide, deep=recipe.judge_deep, hidden=recipe.judge_hidden
        )
        self.module: nn.Module = self.judge
        most = recipe.judge_pictures
        own = keys[:most, 0]
        cosines = own @ own.T
        cosines[_are_one(looks)[:most, :most]] = -2.0
        count = min(_NEAREST, len(own) - 1)
        self._nearest: Sequence[NDArray[np.int64]] = list(
            cosines.topk(count, dim=1).indices.numpy()
        )
        families = looks.families[:most].numpy()
        places = {int(f): np.flatnonzero(families == f) for f in np.unique(families)}
        self._family: Sequence[NDArray[np.int64]] = [places[int(f)] for f in families]
        rng = np.random.default_rng([seed, 5])
        self._maps, self._told, self._same = self._drawn(recipe.judge_pairs, rng)

    def loss(self, number: int, /) -> LossTerms:
        """Of batch `number`."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        rows = torch.randint(len(self._same), (_BATCH,), generator=generator)
        scores, same = self.judge(self._maps[rows].float(), self._told[rows]), self._same[rows]
        wrong = F.softplus(torch.where(same, -scores, scores))
        return LossTerms({"same": wrong[same].mean(), "another": wrong[~same].mean()})

    def _drawn(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs, laid side by side once: `differences` float16, and which pairs are one picture."""
        sketches, views = self._looks.sketches, self._views
        kinds = rng.choice(list(_SHARES), count, p=list(_SHARES.values()))
        one, two = [], []
        for kind in kinds.tolist():
            row = int(rng.integers(len(self._nearest)))
            own, other, rival = int(rng.integers(views)), int(rng.integers(views)), row
            if kind == "same":
                # Not the same look twice, but for a few: a picture is one with itself.
                if own == other and rng.random() < 0.9:
                    other = (own + 1) % views
            else:
                if kind != "near":
                    among = self._family if kind == "family" else self._nearest
                    rival = int(rng.choice(among[row]))
                if rival == row:
                    other = int(rng.integers(views, sketches.shape[1]))
            pair = [(row, own), (rival, other)]
            if rng.random() < 0.5:
                pair.reverse()
            one.append(pair[0])
            two.append(pair[1])
        (a, i), (b, j) = (torch.tensor(each).T for each in (one, two))
        laid_over, under = sketches[a, i], sketches[b, j]
        parts = zip(torch.split(laid_over, _AT_ONCE), torch.split(under, _AT_ONCE), strict=True)
        laid = [differences(self._sketcher, *pair) for pair in parts]
        maps, told = (torch.cat([each[k].half() for each in laid]) for k in (0, 1))
        return maps, told.float(), torch.from_numpy(kinds == "same")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Scores of held-out pairs that pass by their keys, and so are the judge's to decide.

    `views` by change, `[pairs]` each; `near` by kind of near picture; `others` of other pictures,
    those of one family and all others.
    """

    views: Mapping[str, Tensor]
    near: Mapping[str, Tensor]
    others: Tensor


@torch.no_grad()
def judged_pairs(sketcher: Sketcher, judge: Judge, looks: Looks, head: Head, cut: float) -> Judged:
    """Of measured pictures (one view of each change, one near picture of each kind), by a head
    whose threshold is the cosine `cut`."""
    keys = torch.stack([head(each.float()) for each in looks.features])
    near = torch.stack([head(each.float()) for each in looks.near])
    own, sketches, views = keys[:, 0], looks.sketches, keys.shape[1]

    def scores(passing: Tensor, place: int) -> Tensor:
        return _scores(sketcher, judge, sketches[passing, 0], sketches[passing, place])

    by_change = {
        name: scores((own * keys[:, place]).sum(-1) >= cut, place)
        for place, name in enumerate(CHANGES, start=1)
    }
    by_kind = {
        name: scores((own * near[:, place]).sum(-1) >= cut, views + place)
        for place, name in enumerate(NEAR)
    }
    cosines = own @ own.T
    cosines[_are_one(looks)] = -2.0
    first, second = (cosines >= cut).nonzero().T
    others = _scores(sketcher, judge, sketches[first, 0], sketches[second, 0])
    return Judged(by_change, by_kind, others)


def judge_cut(judged: Judged) -> float:
    """The score that all but `_LOST` of the views reach, by which others may come and go."""
    views = torch.cat(list(judged.views.values()))
    return float(views.quantile(_LOST)) if len(views) else 0.0


def judge_figures(judged: Judged) -> dict[str, float]:
    """Shares, of pairs that pass by their keys: views that the judge drops, others that it keeps.

    Then how many pairs of others there are.
    """
    figures = {}
    for name, scores in judged.views.items():
        figures[f"judge: {name} dropped"] = float((scores <= 0).float().mean())
    for name, scores in judged.near.items():
        figures[f"judge: {name} passes"] = float((scores > 0).float().mean())
    figures["judge: another picture passes"] = float((judged.others > 0).float().mean())
    figures["judge: pairs of other pictures"] = float(len(judged.others))
    return figures


def _scores(sketcher: Sketcher, judge: Judge, first: Tensor, second: Tensor) -> Tensor:
    if not len(first):
        return torch.zeros(0)
    pairs = zip(torch.split(first, _AT_ONCE), torch.split(second, _AT_ONCE), strict=True)
    return torch.cat([judge(*differences(sketcher, *pair)) for pair in pairs])


def _are_one(looks: Looks) -> Tensor:
    """Files that show one picture, bool `[pictures, pictures]`: none is another's rival."""
    shown = looks.features[:, 0, -COLOURS:].float()
    return torch.cdist(shown, shown, p=1) / COLOURS < SAME_COLOURS
