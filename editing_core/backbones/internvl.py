"""InternVL: tiles of an InternViT, Qwen2-like decoder (`InternVLForConditionalGeneration`).

    model.vision_tower                 InternVLVisionModel
    model.multi_modal_projector        patches, shuffled four into one -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

One contiguous run a picture: its tiles, and if there are several the whole of it last. The tower is
none of CLIP's kind, so a CLIPModel beside it makes the image keys.
"""

from __future__ import annotations

from typing import Any

from transformers import InternVLForConditionalGeneration, InternVLProcessor

from editing_core.backbones.stock import StockBackbone


class InternVLBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "internvl"
    model_class = InternVLForConditionalGeneration
    processor_class = InternVLProcessor
    makes_own_keys = False
    letterboxes = False

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        side = round(self._processor.image_seq_length**0.5)
        return (side, side), num_tokens - side**2
