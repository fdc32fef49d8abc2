"""Puts the trained stages together as ordinary checkpoints, read by the ordinary loading code.

`model/` is a LLaVA checkpoint with its processor, `clip/` the CLIP whose image side is the same
tower. Weights are stored in half precision; whatever is calibrated later is calibrated on them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPProcessor,
    GenerationConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from editing_core.heraldry.recipe.captions import CaptionTrainer, embedded_clip
from editing_core.heraldry.recipe.eyes import IMAGE_MEAN, IMAGE_STD
from editing_core.heraldry.recipe.language import (
    STRETCHES,
    LanguageTrainer,
    llava_config,
    load_tower,
)
from editing_core.heraldry.recipe.stage import load_stage
from editing_core.heraldry.tokenizer import IMAGE, train_tokenizer


def assemble(folder: Path, out: Path) -> None:
    """Write `out/model` and `out/clip` from the stage checkpoints in `folder`.

    Without a caption checkpoint (interim weights) the text tower of `clip/` is untrained.
    """
    tokenizer = train_tokenizer()
    tower = load_tower(folder / "eyes.safetensors")
    config = llava_config(tokenizer)
    language = LanguageTrainer(config)
    load_stage(language, folder / f"{STRETCHES[-1].name}.safetensors")
    llava = LlavaForConditionalGeneration(config)
    # The embeddings are tied to the head: loading the decoder sets both.
    llava.model.vision_tower.load_state_dict(tower.vision_model.state_dict())
    llava.model.multi_modal_projector.load_state_dict(language.projector.state_dict())
    llava.model.language_model.load_state_dict(language.decoder.state_dict())
    llava.tie_weights()
    llava.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    image_processor = CLIPImageProcessor(
        size={"height": 96, "width": 96},
        do_center_crop=False,
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_STD] * 3,
    )
    llava.to(torch.float16).save_pretrained(out / "model")
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=12,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(out / "model")

    clip = embedded_clip(tower, tokenizer)
    captions = CaptionTrainer(clip, tokenizer)
    if (folder / "captions.safetensors").exists():
        load_stage(captions, folder / "captions.safetensors")
    clip.to(torch.float16).save_pretrained(out / "clip")
    CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(
        out / "clip"
    )
