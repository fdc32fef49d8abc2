"""Hidden states of one row, as routers and editors read them, and what an expert does to them.

Rows are always the base model's own: whatever an edit has changed is never anyone's input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from editing_core.types import Positions, TokenSpans

Norm = Callable[[Tensor, Tensor], Tensor]
"""How an aligned expert's slots read rows: `(states [..., rows, hidden], steps int [..., rows])`
to normed states of the same shape."""


@dataclass(frozen=True)
class RoutingStates:
    """What a router reads of one row: base states at its layer, float32.

    `image` `[patches, hidden]` are the picture's rows, empty for a text-only row. `words`
    `[words, hidden]` are the user's own words read *without* the picture: next to it they would
    already hold what is seen, and the same question about two pictures would be two questions.
    """

    image: Tensor
    words: Tensor


@dataclass(frozen=True)
class RowStates:
    """Base states of one row at one layer, padding stripped.

    `hidden` float32 `[tokens, hidden]` is the output of decoder block `layer`, counted from 0.
    """

    hidden: Tensor
    spans: TokenSpans

    @property
    def image(self) -> Tensor:
        """The image's rows, `[patches, hidden]`; empty for a text-only row."""
        return self.hidden[self.spans.vision_rows]

    @property
    def words(self) -> Tensor:
        """The rows of the user's own words, `[words, hidden]`."""
        start, end = self.spans.prompt
        return self.hidden[start:end]


@dataclass(frozen=True)
class EditStates(RowStates):
    """A teacher-forced row: image, prompt and target in one sequence.

    `target_ids` int64 `[num_slots]`, stop token included; `target_embeddings` float32
    `[num_slots, hidden]`, the base model's input embeddings of them. Row `last_prompt + i` of
    `hidden` predicts `target_ids[i]`.
    """

    target_ids: Tensor
    target_embeddings: Tensor

    @property
    def predicting(self) -> Tensor:
        """The rows that predict the target, `[num_slots, hidden]`."""
        first = self.spans.last_prompt
        return self.hidden[first : first + len(self.target_ids)]

    @property
    def signal(self) -> Tensor:
        """The rows that a generator reads, `[rows, hidden]`: image, words, and what predicts.

        The template's rows are left out, but for the one that predicts the first token, and so is
        the row of the stop token, which predicts nothing.
        """
        return torch.cat([self.image, self.words, self.predicting])


class Intervention(Protocol):
    """One row's fused experts: decided once at prefill, reused at every decode step."""

    @property
    def positions(self) -> Positions:
        """Which rows it may change; all others stay bit-identical."""
        ...

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to base `states` `[rows, hidden]` at the edit layer.

        `steps` int `[rows]`: 1 at the last prompt token, 2 at the first generated token, and so
        on; 0 and below before it. Exactly 0 where it does not act.
        """
        ...
