"""LLaVA-NeXT: tiles of a CLIP tower, Llama-like decoder (`LlavaNextForConditionalGeneration`).

    model.vision_tower                 CLIPVisionModel; patches of `vision_feature_layer`
    model.multi_modal_projector        patches -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

One contiguous run a picture: first the whole of it, scaled to the tower's square, then its tiles,
unpadded, each row of them closed by a learned newline. The whole picture's class token makes the
image key.
"""

from __future__ import annotations

from typing import Any

from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from editing_core.backbones.stock import StockBackbone


class LlavaNextBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "llava_next"
    model_class = LlavaNextForConditionalGeneration
    processor_class = LlavaNextProcessor
    tower_inputs = ("pixel_values", "image_sizes")
    letterboxes = False

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        vision = self._config.vision_config
        side = int(vision.image_size // vision.patch_size)
        return (side, side), int(self._config.vision_feature_select_strategy == "full")
