"""LLaVA 1.5: CLIP tower, MLP projector, Llama-like decoder (`LlavaForConditionalGeneration`).

    model.vision_tower                 CLIPVisionModel or SiglipVisionModel; patches of
                                       `vision_feature_layer`
    model.multi_modal_projector        patches -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

Image tokens are one contiguous run; the prefix is causal. The image key is the projected image
embedding of the CLIPModel beside the checkpoint, where there is one; a plain LLaVA checkpoint holds
the tower without its projection, so there it is the pooled state after the tower's last layer norm.
"""

from __future__ import annotations

from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor

from editing_core.backbones.batch import Picture
from editing_core.backbones.llava_towers import square_tokens
from editing_core.backbones.stock import StockBackbone
from editing_core.errors import CheckpointCorrupt
from editing_core.types import ImageArray


class LlavaBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "llava"
    has_plain_prefix = True
    model_class = LlavaForConditionalGeneration
    processor_class = LlavaProcessor
    # The form LLaVA 1.5 was trained on.
    prompt_format = (
        "{% for message in messages %}"
        "{{ message.role.upper() + ': ' }}"
        "{% for part in message.content if part.type == 'image' %}{{ '<image>\\n' }}{% endfor %}"
        "{% for part in message.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )

    def picture_of(self, image: ImageArray) -> Picture:
        """Every picture alike."""
        del image
        return self.usual_picture

    def text_for(self, inputs: Any) -> str:
        """As many tokens as the model makes: processors of older checkpoints do not know it."""
        vision, made = self._config.vision_config, tuple(inputs["pixel_values"].shape[-2:])
        if made != (vision.image_size, vision.image_size):
            raise CheckpointCorrupt(
                f"the processor makes pictures of {made} pixels, the vision tower reads "
                f"{vision.image_size} by {vision.image_size}"
            )
        text: str = self._processor.image_token * square_tokens(self._config).count
        return text

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        return square_tokens(self._config).grid
