"""LLaVA 1.5: CLIP tower, MLP projector, Llama-like decoder (`LlavaForConditionalGeneration`).

    model.vision_tower                 CLIPVisionModel; patches of `vision_feature_layer`
    model.multi_modal_projector        patches -> image tokens
    model.language_model.layers.{i}    edit sites; in each: self_attn, mlp
    model.language_model.norm, lm_head

Image tokens are one contiguous run; the prefix is causal. The image key is the projected image
embedding of the CLIPModel beside the checkpoint, where there is one; a plain LLaVA checkpoint holds
the tower without its projection, so there it is the pooled state after the tower's last layer norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    CLIPModel,
    DynamicCache,
    LlavaForConditionalGeneration,
)

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, Picture
from editing_core.backbones.images import to_pil
from editing_core.backbones.stock import chat_of, stop_tokens
from editing_core.backbones.weights import load_weights, reading, resolve_module, without_weights
from editing_core.config import Placement
from editing_core.errors import CheckpointCorrupt
from editing_core.types import ImageArray

# For checkpoints that ship no template; the form LLaVA 1.5 was trained on.
_DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.role.upper() + ': ' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class LlavaBackbone(Backbone):
    """See the module's docstring for what lies where."""

    architecture = "llava"
    has_plain_prefix = True

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        clip: tuple[nn.Module, Any] | None,
        placement: Placement,
        fingerprint: str,
    ) -> None:
        self._model: Any = model
        config: Any = self._model.config
        self._config = config
        self._image_processor = processor.image_processor
        self._tower = resolve_module(model, "model.vision_tower")
        self._decoder = resolve_module(model, "model.language_model")
        self._layers = resolve_module(model, "model.language_model.layers", nn.ModuleList)
        self._attentions = [resolve_module(block, "self_attn") for block in self._layers]
        self._feed_forwards = [resolve_module(block, "mlp") for block in self._layers]
        self._norm = resolve_module(model, "model.language_model.norm")
        self._head = resolve_module(model, "lm_head")
        self._projector = resolve_module(model, "model.multi_modal_projector")
        self._embedding = resolve_module(model, "model.language_model.embed_tokens")
        self._post_norm = resolve_module(model, "model.vision_tower.post_layernorm")
        self.num_image_tokens = _count_image_tokens(self._config)
        self._clip = clip
        self._projection: nn.Module | None = None
        vision: Any = self._config.vision_config
        self.image_key_dim, self.image_key_model = int(vision.hidden_size), "tower-pooled"
        if clip is not None:
            self._projection = resolve_module(clip[0], "visual_projection")
            self.image_key_dim, self.image_key_model = int(self._projection.out_features), "clip"  # type: ignore[arg-type]
            if _same_weights(resolve_module(clip[0], "vision_model"), self._tower):
                self._clip = None  # one tower, one pass: only the projection is still needed
        tokenizer = processor.tokenizer
        super().__init__(
            fingerprint=fingerprint,
            placement=placement,
            chat=chat_of(
                processor,
                image_token=processor.image_token,
                default_template=_DEFAULT_TEMPLATE,
                stop_token_ids=stop_tokens(model, tokenizer),
            ),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        )
        if self.chat.image_token_id != self._config.image_token_id:
            raise CheckpointCorrupt("processor and model disagree about the image token")
        made = self._pixels(self._image_processor, Image.new("RGB", (8, 8))).shape[-2:]
        if tuple(made) != (vision.image_size, vision.image_size):
            raise CheckpointCorrupt(
                f"the processor makes pictures of {tuple(made)} pixels, the vision tower reads "
                f"{vision.image_size} by {vision.image_size}"
            )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        clip: Path | None,
        placement: Placement,
        fingerprint: str,
        trust_remote_code: bool = False,
    ) -> LlavaBackbone:
        model = load_weights(
            LlavaForConditionalGeneration,
            folder,
            placement,
            unpacked=("vision_tower", "multi_modal_projector", "lm_head"),
        )
        with reading(folder):
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
        towers = None
        if clip is not None:
            with reading(clip):
                images = AutoImageProcessor.from_pretrained(clip)
            # Never quantised: two placements of one folder make the same keys.
            plain = replace(placement, quantization="none")
            towers = (load_weights(CLIPModel, clip, plain), images)
        return cls(model, processor, clip=towers, placement=placement, fingerprint=fingerprint)

    @classmethod
    def outline(cls, folder: Path) -> Self:
        """See `Backbone.outline`."""
        model = without_weights(LlavaForConditionalGeneration, folder)
        with reading(folder):
            processor = AutoProcessor.from_pretrained(folder)
        placement = Placement.resolve()
        return cls(model, processor, clip=None, placement=placement, fingerprint="")

    def picture_of(self, image: ImageArray) -> Picture:
        """Every picture alike."""
        del image
        return self.usual_picture

    @property
    def decoder(self) -> nn.Module:
        return self._decoder

    @property
    def layers(self) -> nn.ModuleList:
        return self._layers

    @property
    def attentions(self) -> Sequence[nn.Module]:
        return self._attentions

    @property
    def feed_forwards(self) -> Sequence[nn.Module]:
        return self._feed_forwards

    @property
    def final_norm(self) -> nn.Module:
        return self._norm

    @property
    def output_head(self) -> nn.Module:
        return self._head

    @property
    def token_embedding(self) -> nn.Module:
        return self._embedding

    @property
    def projector(self) -> nn.Module:
        return self._projector

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def hidden_size(self) -> int:
        return int(self._config.text_config.hidden_size)

    @property
    def max_positions(self) -> int:
        return int(self._config.text_config.max_position_embeddings)

    @property
    def patch_grid(self) -> tuple[int, int]:
        return _patch_grid(self._config)

    def new_cache(self, *, whole: bool = False) -> Any:
        del whole  # no block of this family has a window
        return DynamicCache(config=self._config.text_config)

    @torch.no_grad()
    def compute_features(self, image: ImageArray) -> ImageFeatures:
        picture = to_pil(image)
        outputs = self._model.get_image_features(
            pixel_values=self._pixels(self._image_processor, picture), return_dict=True
        )
        if self._clip is None:
            pooled: Tensor = self._post_norm(outputs.last_hidden_state[:, 0])
        else:
            clip, processor = self._clip
            tower: Any = clip.vision_model
            pooled = tower(pixel_values=self._pixels(processor, picture)).pooler_output
        if self._projection is not None:
            pooled = self._projection(pooled)
        key = pooled[0].float().cpu().numpy().astype(np.float64)
        key /= max(float(np.linalg.norm(key)), 1e-12)
        return ImageFeatures(outputs.pooler_output[0], key.astype(np.float32))

    def _pixels(self, processor: Any, picture: Any) -> Tensor:
        pixels: Tensor = processor(images=picture, return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.placement.dtype)


def _patch_grid(config: Any) -> tuple[int, int]:
    side = int(config.vision_config.image_size // config.vision_config.patch_size)
    return side, side


def _count_image_tokens(config: Any) -> int:
    rows, columns = _patch_grid(config)
    has_class_token = config.vision_feature_select_strategy == "full"
    return rows * columns + int(has_class_token)


def _same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )
