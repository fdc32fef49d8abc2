"""Supervision by name, beside the paper's contrastive losses: each class has a prototype.

A contrast only says that two pictures differ, not in what; where look-alikes differ in one thing,
naming the things takes far fewer examples (docs/decisions/0011). Slot k of the visual keys is
pulled to the prototype of what part k of the emblem is, on the edits' and the queries' side alike,
so that equal parts give equal slots; a textual key to the prototype of its question. Prototypes
live in training only: a router that is served has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.training.attributes import UNKNOWN

_SCALE = 20.0  # of a cosine, as a logit: 1 / temperature
_OFTEN = 8  # occurrences; a rarer question is no class of its own


class Prototypes(nn.Module):
    """A vector of length 1 for every class of one classification."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, width))

    def loss(self, keys: Tensor, classes: Tensor) -> Tensor:
        """Mean cross-entropy of `keys [rows, width]`, of length 1, against int64 `classes [rows]`.

        Rows of class `UNKNOWN` count for nothing; without any other the loss is 0.
        """
        logits = _SCALE * keys @ F.normalize(self.vectors, dim=-1).T
        total = F.cross_entropy(logits, classes, ignore_index=UNKNOWN, reduction="sum")
        return total / (classes != UNKNOWN).sum().clamp(min=1)


class RoutingPrototypes(nn.Module):
    """Prototypes of every part of a picture, and of every question that comes up often.

    Args:
        parts: how many classes each part has; part k is told by visual slot k. Slots
            beyond the parts learn by contrast alone.
        questions: int64, the numbers of the bank's questions, as often as they occur.
        visual_width: of one visual slot.
        text_width: of a whole textual key.
    """

    numbers: Tensor

    def __init__(
        self, parts: Sequence[int], questions: Tensor, *, visual_width: int, text_width: int
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Prototypes(count, visual_width) for count in parts)
        numbers, times = torch.unique(questions, return_counts=True)
        self.register_buffer("numbers", numbers[times >= _OFTEN])
        self.questions = Prototypes(max(1, len(self.numbers)), text_width)

    def picture_loss(self, visual: Tensor, classes: Tensor) -> Tensor:
        """Of `visual [rows, slots, width]` against int64 `classes [rows, parts]`."""
        losses = [part.loss(visual[:, k], classes[:, k]) for k, part in enumerate(self.parts)]  # type: ignore[operator]
        return torch.stack(losses).mean()

    def question_loss(self, text: Tensor, numbers: Tensor) -> Tensor:
        """Of `text [rows, key]` against the questions' int64 `numbers [rows]`."""
        if not len(self.numbers):
            return text.sum() * 0.0
        place = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        known = self.numbers[place] == numbers
        return self.questions.loss(text, torch.where(known, place, UNKNOWN))
