"""Rows on their way into a backbone: what is asked, and the left-padded batch it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.types import ImageArray, TokenSpans


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """One picture as the backbone sees it, computed once and shared by every row that shows it.

    `patches` `[num_image_tokens, hidden_size]` replace the image tokens; `key` float32
    `[image_key_dim]`, L2-normalised, is what the hard filter compares.
    """

    patches: Tensor
    key: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class PromptRow:
    """One chat turn. The answer, if the row is teacher-forced, is text or ready tokens, not both.

    `target` text goes through the chat template and ends with the stop token; `target_ids` are
    appended as they are.
    """

    prompt: str
    image: ImageArray | ImageFeatures | None = None
    target: str | None = None
    target_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRow:
    """One row without padding. `features` is None for a text-only row."""

    ids: tuple[int, ...]
    spans: TokenSpans
    features: ImageFeatures | None


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBatch:
    """Rows padded on the left to one length T, on the backbone's device.

    `input_ids`, `attention_mask` and `position_ids` are int64 `[batch, T]`. `rows[b].spans` count
    from the row's first real token; `padding[b]` is how many columns come before it.
    """

    rows: tuple[PreparedRow, ...]
    padding: tuple[int, ...]
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor

    @property
    def is_padded(self) -> bool:
        return any(self.padding)

    @property
    def pictures(self) -> dict[int, tuple[int, int]]:
        """The columns of each row's picture, padding counted; rows without one are left out."""
        return {
            b: (row.spans.vision[0] + pad, row.spans.vision[1] + pad)
            for b, (row, pad) in enumerate(zip(self.rows, self.padding, strict=True))
            if row.spans.vision is not None
        }

    @property
    def length(self) -> int:
        return self.input_ids.shape[1]


def collate(
    rows: Sequence[PreparedRow], *, pad_token_id: int, device: torch.device
) -> PreparedBatch:
    """Pad `rows` (at least one) on the left."""
    length = max(len(row.ids) for row in rows)
    padding = tuple(length - len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for b, row in enumerate(rows):
        ids[b, padding[b] :] = torch.tensor(row.ids, dtype=torch.int64)
        mask[b, padding[b] :] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    return PreparedBatch(
        rows=tuple(rows),
        padding=padding,
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=positions.to(device),
    )
