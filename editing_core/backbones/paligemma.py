"""PaliGemma: SigLIP tower, prefix language model (`PaliGemmaForConditionalGeneration`).

    model.vision_tower                 SiglipVisionModel
    model.multi_modal_projector        patches -> image tokens
    model                              makes the mask
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

Picture and prompt see each other in both directions (`prefix_is_causal` is false); the answer sees
what came before it. Positions count from 1. There is no chat template: picture, opening token,
prompt, newline. The mean of the picture's patches makes the image key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from editing_core.backbones.batch import PreparedBatch
from editing_core.backbones.stock import Parts, StockBackbone


class PaliGemmaBackbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "paligemma"
    prefix_is_causal = False
    continues_anywhere = False
    model_class = PaliGemmaForConditionalGeneration
    processor_class = PaliGemmaProcessor
    parts = Parts(body="model")
    prompt_format = (
        "{% for message in messages %}"
        "{% for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
        "{% if message.role == 'user' %}{{ bos_token }}{% endif %}"
        "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
        "{% if message.role == 'user' %}{{ '\\n' }}{% endif %}"
        "{% endfor %}"
    )

    def positions(self, batch: PreparedBatch) -> Tensor:
        """From 1."""
        return batch.position_ids + 1

    def arguments(self, batch: PreparedBatch, columns: slice) -> dict[str, Any]:
        """Which tokens are the answer's: 1, all others 0."""
        types = torch.zeros_like(batch.input_ids)
        for b, (row, pad) in enumerate(zip(batch.rows, batch.padding, strict=True)):
            types[b, row.spans.last_prompt + 1 + pad :] = 1
        return {"token_type_ids": types[:, columns]}
