"""SmolVLM: tiles of a SigLIP tower, Llama-like decoder (`SmolVLMForConditionalGeneration`).

    model.vision_model                 SmolVLMVisionTransformer
    model.connector                    patches, shuffled -> image tokens
    model.text_model.layers.{i}        edit sites; in each: self_attn, mlp
    model.text_model.norm, lm_head

A picture's rows are not contiguous: each tile stands between marks that name its place, and the
whole picture comes last. The mean of its patches makes the image key. SmolVLM's own processor needs
packages for video; for pictures it writes what Idefics3's does, which is used.
"""

from __future__ import annotations

from typing import Any

from transformers import Idefics3Processor, SmolVLMForConditionalGeneration

from editing_core.backbones.stock import Parts, StockBackbone


class SmolVLMBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "smolvlm"
    model_class = SmolVLMForConditionalGeneration
    processor_class = Idefics3Processor
    parts = Parts(
        decoder="model.text_model", projector="model.connector", tower="model.vision_model"
    )
    tower_inputs = ("pixel_values", "pixel_attention_mask")
    letterboxes = False
    whole_tile = -1

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        side = round(self._processor.image_seq_len**0.5)
        return (side, side), num_tokens - side**2
