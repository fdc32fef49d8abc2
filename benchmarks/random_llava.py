"""LLaVA 1.5 of a published shape with random weights, made on the device: nothing is downloaded.

Shapes and arithmetic are the real model's, so times and memory are too; what it says is noise. The
tokenizer is the embedded model's: its tokens are the first of a vocabulary that is padded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
)

from editing_core.backbones.llava import LlavaBackbone
from editing_core.checkpoint import EMBEDDED, CheckpointLayout
from editing_core.config import Placement


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes, and how much of it is measured.

    `vision` and `text` are settings of the two configurations. A first start shows `subjects`
    things and asks `rows` questions; sides take turns for `rounds` rounds of `new_tokens` tokens.
    """

    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    subjects: int = 150
    rows: int = 96
    rounds: int = 10
    new_tokens: int = 64


SHAPES = {
    # As in the configuration of llava-hf/llava-1.5-7b-hf.
    "llava-1.5-7b": Shape(
        vision={
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 768,
        },
        text={
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
    ),
    # To see that the script runs.
    "tiny": Shape(
        vision={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 48,
            "patch_size": 12,
        },
        text={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "vocab_size": 1600,
            "max_position_embeddings": 512,
            # Wide enough that a few steps can make it say anything.
            "initializer_range": 0.3,
        },
        subjects=4,
        rows=4,
        rounds=1,
        new_tokens=3,
    ),
}


class RandomLlava(LlavaBackbone):
    """The real backbone, but that no token ends an answer: all have the length asked for."""

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """None. Targets of edits still end with the tokenizer's."""
        return ()


def build(shape: Shape, placement: Placement, *, seed: int = 0) -> RandomLlava:
    """A backbone with random weights that were drawn on its device, in its own precision."""
    processor = _processor(shape)
    config = configuration(shape, processor.tokenizer)
    torch.manual_seed(seed)
    with placement.device:
        model = AutoModelForImageTextToText.from_config(config, dtype=placement.dtype)
    drawn = f"{shape} {placement} {seed}"
    return RandomLlava(
        model.eval().requires_grad_(False),
        processor,
        clip=None,
        placement=placement,
        fingerprint=f"sha256:{hashlib.sha256(drawn.encode()).hexdigest()}",
    )


def configuration(shape: Shape, tokenizer: Any) -> LlavaConfig:
    """As LLaVA 1.5 is configured: patches of the last layer but one, an untied head."""
    rows = shape.vision["image_size"] // shape.vision["patch_size"]
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**shape.vision),
        text_config=LlamaConfig(
            **shape.text,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=rows * rows,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def embedded_tokenizer() -> Any:
    """The embedded model's, which any text goes through."""
    return AutoTokenizer.from_pretrained(CheckpointLayout(EMBEDDED).model)


def _processor(shape: Shape) -> Any:
    """The embedded model's, but that it makes pictures of this shape's size."""
    folder = CheckpointLayout(EMBEDDED).model
    side = shape.vision["image_size"]
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        tokenizer=embedded_tokenizer(),
        patch_size=shape.vision["patch_size"],
        vision_feature_select_strategy="default",
        chat_template=AutoProcessor.from_pretrained(folder).chat_template,
        num_additional_image_tokens=1,
    )
