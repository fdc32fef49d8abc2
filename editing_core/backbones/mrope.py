"""Families whose positions have three axes (M-RoPE): time, and the rows and columns of a picture.

Text counts on by one on all axes; a picture's tokens stand where they lie in it, and what follows
begins after the longer of its sides. The model itself says what is where (`get_rope_index`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from editing_core.backbones.batch import PreparedBatch
from editing_core.backbones.stock import StockBackbone

_GRID = "image_grid_thw"


class MultimodalRope(StockBackbone):
    """Pictures keep their shape and have as many tokens as that needs."""

    makes_own_keys = False
    tower_inputs = ("pixel_values", _GRID)
    kept = (_GRID,)
    letterboxes = False

    def positions(self, batch: PreparedBatch) -> Tensor:
        """`[3, batch, T]`, or `[batch, T]` where no row has a picture."""
        grids = [row.features.extras[_GRID] for row in batch.rows if row.features is not None]
        if not grids:
            return batch.position_ids
        model = self._model
        positions, _ = model.model.get_rope_index(
            batch.input_ids,
            (batch.input_ids == self.image_token_id).int(),
            image_grid_thw=torch.cat(grids),
            attention_mask=batch.attention_mask,
        )
        placed: Tensor = positions
        return placed

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        merged = int(self._config.vision_config.spatial_merge_size)
        _, rows, columns = inputs[_GRID][0].tolist()
        assert rows * columns == num_tokens * merged**2
        return (rows // merged, columns // merged), 0
