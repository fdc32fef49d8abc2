"""Tiny checkpoints of every other model family, written by the classes that real ones come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers as hf
from tokenizers.processors import TemplateProcessing
from torch import nn

from editing_core.backbones.processors import without_video
from tests.support.tiny_model import CHAT_TEMPLATE, tiny_tokenizer

LAYERS = 4


@dataclass(frozen=True)
class Family:
    """A folder's maker, and how its stock processor is asked.

    `write` puts a prompt into the template's form, with a placeholder for each of its pictures.
    """

    save: Callable[[Path], None]
    model_class: Any
    processor_class: Any
    write: Callable[[str, int], str]
    text_alone: Literal["processor", "tokenizer", "language_model"] = "processor"
    """What is asked without a picture: all of it, the tokenizer, or tokenizer and decoder."""


def _chat(mark: str) -> tuple[str, Callable[[str, int], str]]:
    """A template with `mark` for a picture, and what it makes of a prompt."""
    template = CHAT_TEMPLATE.replace("'<image>\\n'", repr(mark))

    def write(prompt: str, seen: int) -> str:
        return f"<|user|>\n{mark * seen}{prompt}<|end|>\n<|assistant|>\n"

    return template, write


def _text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        # Wide enough that random weights say something other than their last input token.
        "initializer_range": 0.3,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "tie_word_embeddings": False,
        **more,
    }


def _tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 48,
        "patch_size": 12,
        **more,
    }


def _save(folder: Path, model_class: Any, config: Any, processor: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and not _is_text(name):
                    nn.init.normal_(parameter, std=0.3)
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _is_text(name: str) -> bool:
    return any(part in name for part in ("language_model", "text_model", "lm_head"))


_QWEN = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_CHAT, _QWEN_WRITE = _chat("<|vision_start|><|image_pad|><|vision_end|>")


def _qwen(name: str, vision: dict[str, Any], *, patch: int = 6, **text: Any) -> Family:
    model_class = getattr(hf, f"{name}ForConditionalGeneration")
    processor_class = getattr(hf, f"{name}Processor")

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(more=_QWEN, chat_template=_QWEN_CHAT)
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _QWEN}
        config = getattr(hf, f"{name}Config")(
            vision_config={
                "depth": 2,
                "num_heads": 4,
                "patch_size": patch,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "in_channels": 3,
                **vision,
            },
            text_config=_text(
                tokenizer,
                rope_parameters={
                    "rope_type": "default",
                    "mrope_section": [1, 1, 2],
                    "rope_theta": 10000.0,
                },
                **text,
            ),
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            tie_word_embeddings=False,
        )
        images = hf.Qwen2VLImageProcessorPil(
            patch_size=patch,
            merge_size=2,
            temporal_patch_size=2,
            size={"shortest_edge": 24 * 24, "longest_edge": 60 * 60},
        )
        processor = without_video(processor_class)(
            image_processor=images, tokenizer=tokenizer, chat_template=_QWEN_CHAT
        )
        _save(folder, model_class, config, processor)

    return Family(save, model_class, processor_class, _QWEN_WRITE)


def _llava_next(
    name: str,
    tower: Any,
    images: Any,
    strategy: str,
    *,
    layers: list[int] | None = None,
    **more: Any,
) -> Family:
    model_class = getattr(hf, f"{name}ForConditionalGeneration")
    processor_class = getattr(hf, f"{name}Processor")
    template, write = _chat("<image>\n")

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(
            more=("<video>",), chat_template=template, image_token="<image>", video_token="<video>"
        )
        config = getattr(hf, f"{name}Config")(
            vision_config=tower,
            text_config=hf.Qwen2Config(**_text(tokenizer)),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            image_grid_pinpoints=_PINPOINTS,
            vision_feature_select_strategy=strategy,
            vision_feature_layer=layers or (-2 if strategy == "default" else -1),
            tie_word_embeddings=False,
        )
        processor = without_video(processor_class)(
            image_processor=images,
            tokenizer=tokenizer,
            vision_feature_select_strategy=strategy,
            chat_template=template,
            **more,
        )
        _save(folder, model_class, config, processor)

    return Family(save, model_class, processor_class, write)


_PINPOINTS = [[48, 96], [96, 48], [96, 96]]
_TILES = {
    "size": {"shortest_edge": 48},
    "crop_size": {"height": 48, "width": 48},
    "image_grid_pinpoints": _PINPOINTS,
}


def _llava_with_siglip() -> Family:
    template, write = _chat("<image>\n")

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(chat_template=template)
        config = hf.LlavaConfig(
            vision_config=hf.SiglipVisionConfig(**_tower()),
            text_config=hf.LlamaConfig(**_text(tokenizer)),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
            tie_word_embeddings=False,
        )
        processor = hf.LlavaProcessor(
            image_processor=hf.SiglipImageProcessorPil(size={"height": 48, "width": 48}),
            tokenizer=tokenizer,
            patch_size=12,
            vision_feature_select_strategy="full",
            chat_template=template,
        )
        _save(folder, hf.LlavaForConditionalGeneration, config, processor)

    return Family(save, hf.LlavaForConditionalGeneration, hf.LlavaProcessor, write)


def _internvl() -> Family:
    template, write = _chat("<IMG_CONTEXT>\n")
    names = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(more=tuple(names.values()), chat_template=template, **names)
        config = hf.InternVLConfig(
            vision_config=_tower(image_size=[48, 48], patch_size=[12, 12]),
            text_config=hf.Qwen2Config(**_text(tokenizer)),
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
            image_seq_length=4,
            tie_word_embeddings=False,
        )
        images = hf.GotOcr2ImageProcessorPil(
            size={"height": 48, "width": 48}, crop_to_patches=True, min_patches=1, max_patches=4
        )
        processor = without_video(hf.InternVLProcessor)(
            image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=template
        )
        _save(folder, hf.InternVLForConditionalGeneration, config, processor)

    return Family(save, hf.InternVLForConditionalGeneration, hf.InternVLProcessor, write)


def _idefics(name: str) -> Family:
    model_class = getattr(hf, f"{name}ForConditionalGeneration")
    template, write = _chat("<image>")
    marks = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    names = {
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
        "image_token": "<image>",
    }

    def save(folder: Path) -> None:
        more = (*marks, *(token for token in names.values() if token != "<image>"))
        tokenizer = tiny_tokenizer(more=more, chat_template=template, **names)
        config = getattr(hf, f"{name}Config")(
            vision_config=_tower(),
            text_config=hf.LlamaConfig(**_text(tokenizer)),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            tie_word_embeddings=False,
        )
        images = getattr(hf, f"{name}ImageProcessorPil")(
            size={"longest_edge": 96}, max_image_size={"longest_edge": 48}
        )
        processor = hf.Idefics3Processor(
            image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=template
        )
        _save(folder, model_class, config, processor)

    return Family(save, model_class, hf.Idefics3Processor, write)


def _gemma3() -> Family:
    template, write = _chat("<start_of_image>")
    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image>",
    }

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(more=tuple(names.values())[:2], chat_template=template, **names)
        ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
        config = hf.Gemma3Config(
            vision_config=_tower(vision_use_head=False),
            text_config=_text(
                tokenizer,
                head_dim=8,
                query_pre_attn_scalar=8,
                sliding_window=16,
                layer_types=["sliding_attention", "full_attention"] * (LAYERS // 2),
            ),
            mm_tokens_per_image=4,
            boi_token_index=ids["boi_token"],
            eoi_token_index=ids["eoi_token"],
            image_token_index=ids["image_token"],
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=False,
        )
        processor = hf.Gemma3Processor(
            image_processor=hf.Gemma3ImageProcessorPil(size={"height": 48, "width": 48}),
            tokenizer=tokenizer,
            chat_template=template,
            image_seq_length=4,
        )
        _save(folder, hf.Gemma3ForConditionalGeneration, config, processor)

    return Family(save, hf.Gemma3ForConditionalGeneration, hf.Gemma3Processor, write)


def _paligemma() -> Family:
    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(
            more=("<bos>",), chat_template=None, bos_token="<bos>", image_token="<image>"
        )
        config = hf.PaliGemmaConfig(
            vision_config=_tower(vision_use_head=False, projection_dim=32),
            text_config=hf.GemmaConfig(**_text(tokenizer, head_dim=8)),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            projection_dim=32,
            hidden_size=32,
            tie_word_embeddings=False,
        )
        images = hf.SiglipImageProcessorPil(size={"height": 48, "width": 48})
        images.image_seq_length = 16
        processor = hf.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)
        # The processor adds tokens (places, segments) of its own.
        config.text_config.vocab_size = len(tokenizer)
        _save(folder, hf.PaliGemmaForConditionalGeneration, config, processor)

    def write(prompt: str, seen: int) -> str:
        return "<image>" * seen + prompt if seen else f"<bos>{prompt}\n"

    return Family(
        save,
        hf.PaliGemmaForConditionalGeneration,
        hf.PaliGemmaProcessor,
        write,
        text_alone="tokenizer",
    )


def _blip(name: str, text_class: Any, write: Callable[[str, int], str], **text: Any) -> Family:
    model_class = getattr(hf, f"{name}ForConditionalGeneration")
    processor_class = getattr(hf, f"{name}Processor")

    def save(folder: Path) -> None:
        tokenizer = tiny_tokenizer(more=("<bos>",), chat_template=None, bos_token="<bos>")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
        )
        reader = tiny_tokenizer(chat_template=None)
        query_former = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": 32,
            "vocab_size": len(reader),
        }
        config = getattr(hf, f"{name}Config")(
            vision_config=_tower(),
            qformer_config=query_former,
            text_config=text_class(**_text(tokenizer, **text)),
            num_query_tokens=6,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
        images = hf.BlipImageProcessorPil(size={"height": 48, "width": 48})
        parts = {"image_processor": images, "tokenizer": tokenizer, "num_query_tokens": 6}
        if "qformer_tokenizer" in processor_class.get_attributes():
            parts["qformer_tokenizer"] = reader
        _save(folder, model_class, config, processor_class(**parts))

    return Family(save, model_class, processor_class, write, text_alone="language_model")


def _asks_blip_2(prompt: str, seen: int) -> str:
    del seen  # the processor puts queries before what it is given
    return f"Question: {prompt} Answer:"


def _asks_instructblip(prompt: str, seen: int) -> str:
    del seen
    return prompt


FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": _qwen(
        "Qwen2_5_VL",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "window_size": 24,
            "fullatt_block_indexes": [1],
        },
    ),
    "qwen2_vl": _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}),
    "qwen3_vl": _qwen(
        "Qwen3VL",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0, 1],
            "num_position_embeddings": 64,
        },
        head_dim=8,
    ),
    "llava_next": _llava_next(
        "LlavaNext",
        hf.CLIPVisionConfig(**_tower()),
        hf.LlavaNextImageProcessorPil(**_TILES),
        "default",
        patch_size=12,
        num_additional_image_tokens=1,
    ),
    "llava_onevision": _llava_next(
        "LlavaOnevision",
        hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        hf.LlavaOnevisionImageProcessorPil(
            size={"height": 48, "width": 48}, image_grid_pinpoints=_PINPOINTS
        ),
        "full",
        num_image_tokens=16,
    ),
    "internvl": _internvl(),
    "idefics3": _idefics("Idefics3"),
    "smolvlm": _idefics("SmolVLM"),
    "gemma3": _gemma3(),
    "paligemma": _paligemma(),
    "blip-2": _blip("Blip2", hf.OPTConfig, _asks_blip_2, word_embed_proj_dim=32, ffn_dim=64),
    "instructblip": _blip("InstructBlip", hf.LlamaConfig, _asks_instructblip),
}

VARIANTS: dict[str, Family] = {
    "llava, siglip": _llava_with_siglip(),
    "llava_next, siglip": _llava_next(
        "LlavaNext",
        hf.SiglipVisionConfig(**_tower(vision_use_head=False)),
        hf.LlavaNextImageProcessorPil(**_TILES),
        "full",
        layers=[-2, -1],
        patch_size=12,
    ),
}
"""The same families around towers without a class token; the second is built as Granite Vision."""
