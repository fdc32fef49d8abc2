"""Trains the router: which questions are the same, and which pictures show the same thing.

Every step compares all queries of a few subjects with all their edits (see `pairs`):

    text     every other question of the batch is a negative, those about the same picture and
             those that differ in one word most of all
    visual   another view of the same emblem is the positive; the look-alike under the very same
             question, and every other emblem, are negatives
    sentinel must be beaten by the own edit, and must beat all others (LiveEdit, section 3.1)
    names    of the parts that a picture shows and of the question asked (`prototypes`)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from editing_core.objectives.base import LossTerms
from editing_core.objectives.losses import balanced_binary, contrastive
from editing_core.routing.router import Router
from editing_core.training.attributes import PARTS
from editing_core.training.pairs import Comparison, RoutingBank, compare
from editing_core.training.prototypes import RoutingPrototypes


class RouterTask:
    """Draws a step's subjects from the bank and adds up the routing losses.

    `pictures` is a second bank, of many subjects and few questions, for a share of the steps: how
    to word a question is learned from few emblems, how an emblem looks only from many.
    """

    name = "router"

    def __init__(
        self,
        router: Router,
        bank: RoutingBank,
        *,
        seed: int,
        batch: int = 6,
        pictures: RoutingBank | None = None,
        picture_batch: int = 14,
        picture_share: float = 0.6,
    ) -> None:
        self.router = router
        numbers = [bank.same.flatten(), *([] if pictures is None else [pictures.same.flatten()])]
        config = router.config
        self._prototypes = RoutingPrototypes(
            [len(classes) for classes in PARTS.values()][: config.visual_slots],
            torch.cat(numbers),
            visual_width=config.width,
            text_width=config.text_slots * config.width,
        )
        self.module: nn.Module = nn.ModuleDict({"router": router, "prototypes": self._prototypes})
        self._bank = bank
        self._seed = seed
        self._batch = batch
        self._pictures = pictures
        self._picture_batch = picture_batch
        self._picture_share = picture_share

    def loss(self, step: int) -> LossTerms:
        """The loss of a step; its batch depends on the seed and the step only."""
        rng = np.random.default_rng([self._seed, step])
        bank, batch = self._bank, self._batch
        if self._pictures is not None and rng.random() < self._picture_share:
            bank, batch = self._pictures, self._picture_batch
        chosen = rng.permutation(len(bank))[:batch]
        pairs = compare(self.router, bank, torch.from_numpy(chosen))
        losses = routing_losses(pairs)
        return LossTerms(terms={**losses.terms, **self._names(pairs)}, figures=losses.figures)

    def _names(self, pairs: Comparison) -> dict[str, torch.Tensor]:
        sides, named = (pairs.edits, pairs.queries), self._prototypes
        return {
            "parts": torch.stack(
                [named.picture_loss(side.visual, side.classes) for side in sides]
            ).sum(),
            "questions": torch.stack(
                [named.question_loss(side.text, side.questions) for side in sides]
            ).sum(),
        }


def routing_losses(pairs: Comparison) -> LossTerms:
    """The paper's routing losses with every pair of the batch as a candidate.

    `text_contrast` is equation 16 and `text_gate` equation 15 with all negatives,
    `visual_contrast` equation 13's first term and `sentinel` its second, `visual_gate` the
    threshold as a binary decision, in which look-alikes weigh most.
    """
    text, visual = pairs.text, pairs.visual
    other_question = pairs.same_picture & ~pairs.same_text
    # Two wordings of one kind may mean the same ("the stars", "the charges") on another emblem.
    clear = pairs.same_text | pairs.same_picture | ~pairs.near_text
    text_contrast = (
        contrastive(text, positive=pairs.same_text, candidate=clear)
        + contrastive(text.T, positive=pairs.same_text.T, candidate=clear.T)
        + contrastive(text, positive=pairs.own, candidate=pairs.own | other_question)
    )
    text_gate = balanced_binary(
        text, positive=pairs.own, negative=other_question
    ) + balanced_binary(text, positive=pairs.same_text, negative=clear & ~pairs.same_text)
    elsewhere = ~pairs.same_picture
    none = torch.zeros_like(pairs.own[:, :1])
    with_sentinel = torch.cat([visual, torch.zeros_like(visual[:, :1])], dim=1)
    visual_contrast = contrastive(
        with_sentinel,
        positive=torch.cat([pairs.own, none], dim=1),
        candidate=torch.cat([pairs.own | elsewhere, ~none], dim=1),
    )
    sentinel = contrastive(
        with_sentinel,
        positive=torch.cat([torch.zeros_like(pairs.own), ~none], dim=1),
        candidate=torch.cat([elsewhere, ~none], dim=1),
    )
    visual_gate = balanced_binary(
        visual, positive=pairs.own, negative=pairs.look_alike
    ) + 0.3 * balanced_binary(visual, positive=pairs.own, negative=elsewhere)
    return LossTerms(
        terms={
            "text_contrast": text_contrast,
            "text_gate": text_gate,
            "visual_contrast": visual_contrast,
            "sentinel": sentinel,
            "visual_gate": visual_gate,
        },
        figures=routing_figures(pairs),
    )


def routing_figures(pairs: Comparison, *, rho: float = 0.5) -> dict[str, float]:
    """Shares of right decisions at gate `rho` and the sentinel's own threshold."""
    gate = pairs.text.detach().sigmoid() >= rho
    looks = pairs.visual.detach() > 0
    others = pairs.same_picture & ~pairs.same_text
    return {
        "own_text": float(gate[pairs.own].float().mean()),
        "other_question": float((~gate[others]).float().mean()),
        "own_picture": float(looks[pairs.own].float().mean()),
        "look_alike": float((~looks[pairs.look_alike]).float().mean()),
    }
