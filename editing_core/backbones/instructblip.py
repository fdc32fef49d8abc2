"""InstructBLIP: queries that read the prompt, Vicuna (`InstructBlipForConditionalGeneration`).

    vision_model                     InstructBlipVisionModel
    qformer, language_projection     queries, with the prompt in mind -> image tokens
    language_model.model.layers.{i}  edit sites; in each: self_attn, mlp
    language_model.model.norm, language_model.lm_head

One contiguous run of queries, before the opening token; they have no place in the picture, and what
they tell of it depends on what is asked. A CLIPModel beside it makes the image keys. There is no
chat template: the prompt stands alone.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from editing_core.backbones.batch import ImageFeatures
from editing_core.backbones.chat import normalise
from editing_core.backbones.stock import Parts, StockBackbone

_SEEN = "seen"


class InstructBlipBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "instructblip"
    model_class = InstructBlipForConditionalGeneration
    processor_class = InstructBlipProcessor
    makes_own_keys = False
    takes_several_images = False
    parts = Parts(
        decoder="language_model.model",
        head="language_model.lm_head",
        projector="language_projection",
        tower="vision_model",
    )
    prompt_format = (
        "{% for message in messages %}"
        "{% for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
        "{% if message.role == 'user' %}{{ bos_token }}{% else %}{{ ' ' }}{% endif %}"
        "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
        "{% endfor %}"
    )

    def look(self, inputs: Any) -> Any:
        """The tower's patches, and what the queries tell when nothing is asked."""
        model = self._model
        seen = model.vision_model(pixel_values=inputs["pixel_values"], return_dict=True)
        patches = seen.last_hidden_state
        return SimpleNamespace(pooler_output=self._told(patches, ""), last_hidden_state=patches)

    def more_extras(self, seen: Any) -> dict[str, Tensor]:
        """`seen` `[1, patches, vision hidden]`."""
        return {_SEEN: seen.last_hidden_state}

    @torch.no_grad()
    def for_prompt(self, features: ImageFeatures, prompt: str) -> ImageFeatures:
        told = self._told(features.extras[_SEEN], normalise(prompt))[0]
        # Made of the prompt too, so that no other row begins like this one.
        return replace(features, patches=told, content=b"")

    def _told(self, patches: Tensor, prompt: str) -> Tensor:
        """Image tokens `[1, queries, hidden_size]`: the model's own steps after its tower."""
        model = self._model
        asked = self._processor.qformer_tokenizer(prompt, return_tensors="pt")["input_ids"]
        asked = asked.to(self.device)
        queries = model.query_tokens.expand(len(patches), -1, -1)
        told = model.qformer(
            input_ids=asked,
            attention_mask=asked.new_ones((1, queries.shape[1] + asked.shape[1])),
            query_embeds=queries,
            encoder_hidden_states=patches,
            encoder_attention_mask=asked.new_ones(patches.shape[:2]),
            return_dict=True,
        )
        tokens: Tensor = model.language_projection(told.last_hidden_state[:, : queries.shape[1]])
        return tokens

    def text_for(self, inputs: Any) -> str:
        del inputs
        return self.chat.image_token * int(self._config.num_query_tokens)

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        return None, 0
