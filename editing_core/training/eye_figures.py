"""How well eyes tell pictures apart: at which cosine, and what that costs, by world and change."""

from __future__ import annotations

import torch
from torch import Tensor

from editing_core.training.eye_look import Looks
from editing_core.training.eye_views import CHANGES

TAKEN = 5e-4
"""The share of pairs of other pictures that may pass: 3 % of queries with 60 edits in force."""


def cosines_of_others(keys: Tensor, looks: Looks, *, world: str) -> Tensor:
    """Of the pictures of one world `[pictures, 1 + views, dim]`, of families apart."""
    rows = torch.tensor([name == world for name in looks.worlds])
    own, families = keys[rows, 0], looks.families[rows]
    return (own @ own.T)[families[:, None] != families[None]]


def choose_cut(keys: Tensor, looks: Looks) -> float:
    """The cosine that `TAKEN` of the others reach, in the world where that is highest.

    `keys` `[pictures, 1 + views, dim]` are those of the pictures of `looks`.
    """
    cuts = []
    for world in sorted(set(looks.worlds)):
        others = cosines_of_others(keys, looks, world=world)
        cuts.append(float(others.sort().values[int((1.0 - TAKEN) * (len(others) - 1))]))
    return max(cuts)


def eyes_figures(keys: Tensor, looks: Looks, cut: float) -> dict[str, float]:
    """Shares by world: other pictures that pass, of any family and of one; views that do."""
    figures: dict[str, float] = {}
    cosines = (keys[:, :1] * keys[:, 1:]).sum(-1)
    for world in sorted(set(looks.worlds)):
        rows = torch.tensor([name == world for name in looks.worlds])
        others = cosines_of_others(keys, looks, world=world)
        figures[f"{world}: another picture passes"] = float((others >= cut).float().mean())
        own, families = keys[rows, 0], looks.families[rows]
        alike = (families[:, None] == families[None]) & ~torch.eye(len(own), dtype=torch.bool)
        if bool(alike.any()):
            passing = (own @ own.T)[alike] >= cut
            figures[f"{world}: one of its family passes"] = float(passing.float().mean())
        for place, name in enumerate(CHANGES):
            passes = cosines[rows, place] >= cut
            figures[f"{world}: {name} passes"] = float(passes.float().mean())
        figures[f"{world}: any view passes"] = float((cosines[rows] >= cut).float().mean())
    return figures
