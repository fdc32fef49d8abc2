"""BLIP-2 with an OPT decoder: a Q-Former's queries (`Blip2ForConditionalGeneration`).

    vision_model                             Blip2VisionModel
    qformer, language_projection             queries -> image tokens
    language_model.model.decoder.layers.{i}  edit sites; in each: self_attn, fc2
    language_model.model.decoder.final_layer_norm, language_model.lm_head

One contiguous run of queries, before the opening token. Queries have no place in the picture. The
tower is none of CLIP's kind, so a CLIPModel beside it makes the image keys. There is no chat
template; the form is that of the paper's visual question answering.
"""

from __future__ import annotations

from typing import Any

from transformers import Blip2ForConditionalGeneration, Blip2Processor

from editing_core.backbones.stock import Parts, StockBackbone


class Blip2Backbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "blip-2"
    model_class = Blip2ForConditionalGeneration
    processor_class = Blip2Processor
    makes_own_keys = False
    takes_several_images = False
    parts = Parts(
        decoder="language_model.model.decoder",
        head="language_model.lm_head",
        projector="language_projection",
        tower="vision_model",
        norm="final_layer_norm",
        feed_forward="fc2",
    )
    prompt_format = (
        "{% for message in messages %}"
        "{% for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
        "{% if message.role == 'user' %}{{ bos_token + 'Question:' }}{% endif %}{{ ' ' }}"
        "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
        "{% if message.role == 'user' %}{{ ' Answer:' }}{% endif %}"
        "{% endfor %}"
    )

    def text_for(self, inputs: Any) -> str:
        del inputs
        return self.chat.image_token * int(self._config.num_query_tokens)

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        return None, 0
