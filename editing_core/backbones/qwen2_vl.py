"""Qwen2-VL: a tower for any shape, M-RoPE (`Qwen2VLForConditionalGeneration`).

    model.visual                       patches, merged two by two: `model.visual.merger`
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

One contiguous run of image tokens a picture, as many as its size needs. The tower is none of
CLIP's kind, so a CLIPModel beside it makes the image keys.
"""

from __future__ import annotations

from transformers import Qwen2VLForConditionalGeneration, Qwen2VLProcessor

from editing_core.backbones.mrope import MultimodalRope
from editing_core.backbones.stock import Parts


class Qwen2VLBackbone(MultimodalRope):
    """See the module's docstring for what lies where."""

    architecture = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
    processor_class = Qwen2VLProcessor
    parts = Parts(projector="model.visual.merger", tower="model.visual")
