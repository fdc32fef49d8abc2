"""How well eyes tell pictures apart: at which cosine, and what that costs, by world and change."""

from __future__ import annotations

import torch
from torch import Tensor

from editing_core.eyes.features import spread_of
from editing_core.training.eye_look import Looks
from editing_core.training.eye_views import CHANGES

TAKEN = 5e-4
"""The share of pairs of other pictures that may pass: 3 % of queries with 60 edits in force."""
_ROOM = 0.005
PLAIN = 0.2
"""Pictures with less spread than this are held to a stricter line, and set none."""


def choose_cut(keys: Tensor, looks: Looks, tau: float) -> float:
    """The cosine that `TAKEN` of the pairs of different pictures of one world reach.

    Pairs of one family count: products on a shelf are as alike as crops of one photograph. It
    stays `_ROOM` below `tau`, on which it is moved. `keys` `[pictures, 1 + views, dim]` are those
    of the pictures of `looks`.
    """
    has_much = spread_of(looks.features[:, 0]) >= PLAIN
    cosines = []
    for world in sorted(set(looks.worlds)):
        own = keys[_of(looks, world) & has_much, 0]
        cosines.append((own @ own.T)[~torch.eye(len(own), dtype=torch.bool)])
    others = torch.cat(cosines).sort().values
    return min(float(others[int((1.0 - TAKEN) * (len(others) - 1))]), tau - _ROOM)


def eyes_figures(keys: Tensor, looks: Looks, tau: float) -> dict[str, float]:
    """Shares by world: other pictures that pass, of any family and of one; views that do.

    `keys` as for `choose_cut`, with their constant part.
    """
    figures: dict[str, float] = {}
    passes = (keys[:, :1] * keys[:, 1:]).sum(-1) >= tau
    for world in sorted(set(looks.worlds)):
        rows = _of(looks, world)
        own, families = keys[rows, 0], looks.families[rows]
        taken, is_family = own @ own.T >= tau, families[:, None] == families
        alike = is_family & ~torch.eye(len(own), dtype=torch.bool)
        for name, pairs in (("another picture", ~is_family), ("one of its family", alike)):
            if bool(pairs.any()):
                figures[f"{world}: {name} passes"] = float(taken[pairs].float().mean())
        for place, name in enumerate(CHANGES):
            figures[f"{world}: {name} passes"] = float(passes[rows, place].float().mean())
        figures[f"{world}: any view passes"] = float(passes[rows].float().mean())
    return figures


def _of(looks: Looks, world: str) -> Tensor:
    return torch.tensor([name == world for name in looks.worlds])
