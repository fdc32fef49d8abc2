"""LLaVA-NeXT: tiles of a CLIP tower, Llama-like decoder (`LlavaNextForConditionalGeneration`).

    model.vision_tower                 CLIPVisionModel or SiglipVisionModel; patches of
                                       `vision_feature_layer`
    model.multi_modal_projector        patches -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

One contiguous run a picture: first the whole of it, scaled to the tower's square, then its tiles,
unpadded, each row of them closed by a learned newline. What the tower makes of the whole
picture is the image key.
"""

from __future__ import annotations

from typing import Any

from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from editing_core.backbones.llava_towers import square_tokens
from editing_core.backbones.stock import StockBackbone


class LlavaNextBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "llava_next"
    model_class = LlavaNextForConditionalGeneration
    processor_class = LlavaNextProcessor
    tower_inputs = ("pixel_values", "image_sizes")
    letterboxes = False

    def set_up(self, processor: Any) -> None:
        """Its rule needs the model's numbers, which older folders do not give it."""
        config = self._config
        processor.patch_size = config.vision_config.patch_size
        processor.num_additional_image_tokens = square_tokens(config).class_tokens
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        return square_tokens(self._config).grid
