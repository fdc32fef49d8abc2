"""Qwen3-VL: as Qwen2.5-VL, with deep visual features (`Qwen3VLForConditionalGeneration`).

    model.visual                       patches, merged two by two: `model.visual.merger`
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

After each of the first blocks, features of an earlier layer of the tower are added to the picture's
rows. An edit site is the block's own output, before that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from editing_core.backbones.batch import PreparedBatch
from editing_core.backbones.mrope import MultimodalRope
from editing_core.backbones.stock import Parts

_DEEP = "deep"


class Qwen3VLBackbone(MultimodalRope):
    """See the module's docstring for what lies where."""

    architecture = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    processor_class = Qwen3VLProcessor
    parts = Parts(projector="model.visual.merger", tower="model.visual")

    def more_extras(self, seen: Any) -> dict[str, Tensor]:
        """`deep` `[image tokens, levels, hidden_size]`."""
        return {_DEEP: torch.stack([torch.cat(level) for level in seen.deepstack_features], dim=1)}

    def arguments(self, batch: PreparedBatch, columns: slice) -> dict[str, Any]:
        deep = [row.features.extras[_DEEP] for row in batch.rows if row.features is not None]
        if not deep:
            return {}
        shown = batch.input_ids == self.image_token_id
        among = torch.zeros_like(shown)
        among[:, columns] = True
        levels = torch.cat(deep)[among[shown]].unbind(dim=1)
        return {"visual_pos_masks": shown[:, columns], "deepstack_visual_embeds": list(levels)}
