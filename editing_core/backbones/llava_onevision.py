"""LLaVA-OneVision: tiles of a SigLIP tower (`LlavaOnevisionForConditionalGeneration`).

    model.vision_tower                 SiglipVisionModel; patches of `vision_feature_layer`
    model.multi_modal_projector        patches -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

One contiguous run a picture: first the whole of it, scaled to the tower's square, then its tiles,
unpadded, each row of them closed by a learned newline. The tower makes the image key. A picture
among several would be cut into no tiles, so a row shows one.
"""

from __future__ import annotations

from typing import Any

from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from editing_core.backbones.llava_towers import square_tokens
from editing_core.backbones.stock import StockBackbone


class LlavaOnevisionBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    processor_class = LlavaOnevisionProcessor
    tower_inputs = ("pixel_values", "image_sizes")
    letterboxes = False
    takes_several_images = False

    def set_up(self, processor: Any) -> None:
        """Its rule needs the model's numbers, which older folders do not give it."""
        config = self._config
        processor.num_image_tokens = square_tokens(config).side ** 2
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.vision_aspect_ratio = config.vision_aspect_ratio

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        return square_tokens(self._config).grid
