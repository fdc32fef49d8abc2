"""Rows on their way into a backbone: what is asked, and the left-padded batch it becomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.types import ImageArray, Rows, TokenSpans, Turn, no_sketch


@dataclass(frozen=True, slots=True)
class Picture:
    """How one picture stands in a prompt.

    `text` replaces the template's placeholder and holds the image token once for each of `runs`,
    which say how often it is repeated there; what else it holds (separators of tiles) is text like
    any other. `grid` are the rows and columns of the patches that show the whole picture, in
    reading order, and `grid_start` which of the picture's tokens is the first of them; None where
    tokens have no place.
    """

    text: str
    runs: tuple[int, ...]
    grid: tuple[int, int] | None = None
    grid_start: int = 0

    @property
    def num_tokens(self) -> int:
        """Image tokens, separators not counted."""
        return sum(self.runs)


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """What a row shows as the backbone sees it, computed once and shared by every such row.

    `patches` `[image tokens, hidden_size]` replace the image tokens; `key` float32
    `[image_key_dim]`, L2-normalised, is what the hard filter compares. `pictures` say how it is
    written, the family's usual picture if none does: one of it, or several in order. `extras` are
    further tensors that the family's decoder needs. `content` is a digest of the pictures that all
    this was made of, empty where it was made of more than them. `sketch` goes with `key`: see
    `PictureKey`.
    """

    patches: Tensor
    key: NDArray[np.float32]
    pictures: tuple[Picture, ...] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    content: bytes = b""
    sketch: NDArray[np.int8] = field(default_factory=no_sketch)


@dataclass(frozen=True, slots=True, eq=False)
class PromptRow:
    """One chat turn. The answer, if the row is teacher-forced, is text or ready tokens, not both.

    `more_images` are shown after `image`, which makes the key that edits go by.
    `turns` are read in place of prompt and picture, which then are only what edits go by: the words
    of their last, and the latest picture of any. `ids` are a text read as it stands.
    `target` text goes through the chat template and ends with the stop token; `target_ids` are
    appended as they are.
    """

    prompt: str
    image: ImageArray | ImageFeatures | None = None
    target: str | None = None
    target_ids: tuple[int, ...] = ()
    more_images: tuple[ImageArray, ...] = ()
    turns: tuple[Turn, ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRow:
    """One row without padding. `features` is None for a text-only row.

    `shown` is the half-open range of all that stands for the pictures, separators and marks around
    them counted; by default the span of the picture itself. `prompt` is the user's text.
    `alone` is the same question about the same picture without the conversation before it, by which
    edits are chosen, and `latest` then the rows of that picture among those of the conversation.
    """

    ids: tuple[int, ...]
    spans: TokenSpans
    features: ImageFeatures | None
    shown: tuple[int, int] | None = None
    prompt: str = ""
    alone: PreparedRow | None = None
    latest: tuple[int, ...] | None = None


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
    def pictures(self) -> dict[int, Rows]:
        """The columns of each row's picture, padding counted; rows without one are left out.

        Of a conversation they are those of its latest picture.
        """
        return {
            b: row.spans.vision_columns(pad)
            if row.latest is None
            else [at + pad for at in row.latest]
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


def in_pieces(lengths: Sequence[int], tokens_at_once: int) -> list[slice]:
    """Successive rows with `lengths` tokens as batches of at most so many, padding counted.

    A row that has more is a batch of its own.
    """
    pieces: list[slice] = []
    start = widest = 0
    for end, length in enumerate(lengths):
        widest = max(widest, length)
        if end > start and (end + 1 - start) * widest > tokens_at_once:
            pieces.append(slice(start, end))
            start, widest = end, length
    if lengths:
        pieces.append(slice(start, len(lengths)))
    return pieces
