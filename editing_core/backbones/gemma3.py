"""Gemma 3: SigLIP tower, windowed and full attention (`Gemma3ForConditionalGeneration`).

    model.vision_tower                 SiglipVisionModel
    model.multi_modal_projector        patches, pooled -> image tokens
    model                              makes the masks
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp, and norms of what they
                                       give out
    model.language_model.norm, lm_head

A picture's tokens see one another in both directions, everything else only what came before; so a
prefix may be shared as far as it cuts no picture in two. One contiguous run a picture. The mean of
its patches makes the image key.
"""

from __future__ import annotations

from typing import Any

from transformers import Gemma3ForConditionalGeneration, Gemma3Processor

from editing_core.backbones.batch import PreparedBatch
from editing_core.backbones.stock import Parts, StockBackbone


class Gemma3Backbone(StockBackbone):
    """See the module's docstring for what lies where."""

    architecture = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    processor_class = Gemma3Processor
    parts = Parts(body="model")
    continues_anywhere = False

    def arguments(self, batch: PreparedBatch, columns: slice) -> dict[str, Any]:
        return {"token_type_ids": (batch.input_ids[:, columns] == self.image_token_id).long()}
