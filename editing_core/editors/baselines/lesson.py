"""What a gradient learns from: one edit as a teacher-forced row, and steps until it is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.objectives.losses import sequence_nll
from editing_core.types import EditRequest


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Image, prompt and target in a batch of one unpadded row.

    `target_ids` int64 `[n]`, stop token included. Row `last_prompt + i` predicts token i.
    """

    batch: PreparedBatch
    target_ids: Tensor

    @classmethod
    def of(cls, backbone: Backbone, request: EditRequest) -> Lesson:
        """Raises `TargetNotEncodable` and `ContextTooLong`."""
        ids = tuple(backbone.encode_target(request.target))
        batch = backbone.prepare([PromptRow(request.prompt, request.image, target_ids=ids)])
        return cls(batch, torch.tensor(ids, device=backbone.device))

    @property
    def last_prompt(self) -> int:
        return self.batch.rows[0].spans.last_prompt

    @property
    def vision(self) -> tuple[int, int]:
        """The picture's rows."""
        vision = self.batch.rows[0].spans.vision
        assert vision is not None
        return vision

    def loss(self, logits: Tensor) -> Tensor:
        """Mean negative log likelihood of the target, from logits `[1, T, vocab]`."""
        return self.answer_loss(
            logits[:, self.last_prompt : self.last_prompt + len(self.target_ids)]
        )

    def answer_loss(self, answer: Tensor) -> Tensor:
        """The same, from the logits that choose the target's tokens, `[1, n, vocab]`."""
        return sequence_nll(answer, self.target_ids[None])[0]


def descend(
    parameters: Sequence[Tensor],
    loss: Callable[[], Tensor],
    *,
    rate: float,
    steps: int,
    stop_at: float,
    patience: int | None = None,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Adam on `parameters`, in place: at most `steps`, ending once the loss is below `stop_at`.

    With a `patience` it also ends where that many steps no longer take a tenth off the loss.
    """
    optimiser = torch.optim.Adam(parameters, lr=rate)
    losses: list[float] = []
    with torch.enable_grad():
        for _ in range(steps):
            value = loss()
            losses.append(float(value.detach()))
            if losses[-1] < stop_at or (patience and _is_stuck(losses, patience)):
                return
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if after_step is not None:
                after_step()


def _is_stuck(losses: Sequence[float], patience: int) -> bool:
    earlier = losses[:-patience]
    return bool(earlier) and min(losses[-patience:]) > 0.9 * min(earlier)
