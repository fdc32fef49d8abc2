"""A complete checkpoint of the real classes with tiny random weights, made in a second.

It has the layout of the embedded model, so everything that loads that loads this.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from editing_core.backbones.batch import PromptRow
from editing_core.backbones.loading import load_backbone
from editing_core.checkpoint import CheckpointLayout, write_manifest
from editing_core.config import Placement
from editing_core.editors.fitted import Fitted
from editing_core.editors.liveedit import Form, LiveEdit, LiveEditConfig
from editing_core.editors.visedit import VisEdit, VisEditConfig
from editing_core.routing.router import Router, RouterConfig, Thresholds
from editing_core.types import ImageArray

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message.role + '|>\\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}{{ '<image>\\n' }}{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}"
    "{{ '<|end|>' }}{% if not loop.last or add_generation_prompt %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# A few merges, so that tokens of more than one byte exist and cut across words.
MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "s"), ("Ġ", "b"), ("l", "u"), ("Ġb", "lu"))


def tiny_tokenizer(
    *,
    more: Sequence[str] = (),
    chat_template: str | None = CHAT_TEMPLATE,
    bos_token: str | None = None,
    **names: str,
) -> PreTrainedTokenizerFast:
    """Byte-level BPE over all 256 bytes: any text encodes and comes back.

    `more` are special tokens beyond the usual; `names` make some of them attributes.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=list(MERGES))
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*SPECIAL_TOKENS, *more)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        bos_token=bos_token,
        additional_special_tokens=["<|user|>", "<|assistant|>", "<image>", *more],
        extra_special_tokens=names,
        chat_template=chat_template,
        model_max_length=512,
    )


def save_tiny_backbone(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 4) -> None:
    """Write `model/` and `clip/` under `folder`: 48-pixel images, 16 image tokens, 4 heads."""
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=48,
        patch_size=12,
        projection_dim=16,
    )
    text = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        # Wide enough that random weights say something other than their last input token.
        initializer_range=0.3,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=16,
        tie_word_embeddings=True,
    )
    clip_config = CLIPConfig(
        text_config=CLIPTextConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=len(tokenizer),
            max_position_embeddings=32,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.eos_token_id,
        ).to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).eval()
        clip = CLIPModel(clip_config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        for name, parameter in model.model.vision_tower.encoder.named_parameters():
            if name.endswith("weight") and parameter.ndim > 1:
                parameter.mul_(10.0)  # so that different pictures get different keys
    # One tower for both, as in the embedded model.
    clip.vision_model.load_state_dict(model.model.vision_tower.state_dict())
    images = CLIPImageProcessorPil(
        size={"height": 48, "width": 48},
        do_center_crop=False,
        crop_size={"height": 48, "width": 48},
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=12,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    clip.save_pretrained(folder / "clip")
    images.save_pretrained(folder / "clip")


def save_tiny_checkpoint(folder: Path, *, seed: int = 0, **thresholds: Any) -> Path:
    """A whole checkpoint under `folder` (which is returned): backbone, router, editors, manifest.

    The router and the editors have random weights. `thresholds` are the router's; by default an
    edit fires on every question about its own image and on no other `tiny_image`.
    """
    save_tiny_backbone(folder, seed=seed)
    backbone = load_backbone(CheckpointLayout(folder), Placement.resolve())
    forms: dict[str, Form] = {"liveedit": "aligned", "liveedit-paper": "paper"}
    hidden = backbone.hidden_size
    settings = {"tau": 0.98, "rho": 0.0, "margin": -100.0} | thresholds
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = Router(
            RouterConfig(hidden, layer=1, num_patches=backbone.num_image_tokens, width=16, heads=4),
            thresholds=Thresholds(**settings),
            backbone_fingerprint=backbone.fingerprint,
        )
        router.save(folder / "router.safetensors", folder / "router.json")
        for name, form in forms.items():
            editor = LiveEdit(
                LiveEditConfig(hidden, edit_layer=1, form=form, width=16, heads=4),
                backbone_fingerprint=backbone.fingerprint,
            )
            _enlarge(editor.module, 3.0 if form == "aligned" else 12.0)
            editor.save(folder / f"{name}.safetensors", folder / f"{name}.json")
        visedit = VisEdit(
            VisEditConfig(
                hidden,
                edit_layer=1,
                width=16,
                heads=4,
                patches=3,
                views=1,
                wordings=2,
                turns=3,
                settled=2,
                rank=4,
                max_steps=8,
            ),
            backbone_fingerprint=backbone.fingerprint,
        )
        with torch.no_grad():
            # All that later rows get of a picture passes through attention.
            visedit.module.log_scale.fill_(4.0)
        visedit.save(folder / "visedit.safetensors", folder / "visedit.json")
        fitted = Fitted.measure(backbone, 1, tiny_rows(), rank=8)
        fitted.save(folder / "fitted.safetensors", folder / "fitted.json")
    write_manifest(folder)
    return folder


def _enlarge(module: nn.Module, factor: float) -> None:
    """Make a random expert strong enough to change what the model says."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)


def tiny_rows(count: int = 24) -> list[PromptRow]:
    """Questions with answers about different pictures, for what is measured on a backbone."""
    questions = ("Is the star blue?", "What is this?", "How many are there here?", "Where?")
    answers = ("the blue", "no", "a b a c", "seven of them")
    return [
        PromptRow(questions[i % 4], tiny_image(100 + i), answers[(i + i // 4) % 4])
        for i in range(count)
    ]


def tiny_image(seed: int, *, height: int = 48, width: int = 48) -> ImageArray:
    """Coarse coloured blocks: different seeds look different to a random tower too."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    rows = np.arange(height) * 4 // height
    columns = np.arange(width) * 4 // width
    return np.ascontiguousarray(blocks[rows][:, columns])
