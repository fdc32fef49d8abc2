"""Families through transformers' own classes: what their files name, and what follows from it.

A family's file names the model's and the processor's class and where the parts are. Pictures are
prepared and written into the prompt by the family's own processor, and looked at by the model's own
`get_image_features`; each block runs as the model's own code runs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor, nn
from transformers import DynamicCache

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, Picture
from editing_core.backbones.chat import TEMPLATE_HINT, ChatTokenizer, chat_template
from editing_core.backbones.image_keys import ClipKeys, EyedKeys, ImageKeys, keys_of
from editing_core.backbones.images import to_pil
from editing_core.backbones.processors import load_processor
from editing_core.backbones.weights import load_weights, resolve_module, without_weights
from editing_core.config import Placement
from editing_core.errors import CheckpointCorrupt, CheckpointUnsupported, PictureNotReadable
from editing_core.eyes.eyes import Eyes, glance_of
from editing_core.types import ImageArray

_USUAL_SIDE = 448
# Gemma since its second version norms what attention and feed-forward give out.
_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True, slots=True)
class Parts:
    """Paths of modules: the first five in the model, three in the decoder, the rest in a block.

    `body` is what is called with embeddings, if that is not the decoder.
    """

    decoder: str = "model.language_model"
    head: str = "lm_head"
    projector: str = "model.multi_modal_projector"
    tower: str = "model.vision_tower"
    body: str | None = None
    layers: str = "layers"
    norm: str = "norm"
    embedding: str = "embed_tokens"
    attention: str = "self_attn"
    feed_forward: str = "mlp"


class StockBackbone(Backbone):
    """Subclasses name; see the module's docstring."""

    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    parts: ClassVar[Parts] = Parts()
    tower_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    """What `get_image_features` takes of what the image processor gives."""
    kept: ClassVar[tuple[str, ...]] = ()
    """What of it the decoder needs too: these are the features' `extras`."""
    letterboxes: ClassVar[bool] = True
    """Whether pictures become squares first: not where the model takes any shape as it is."""
    whole_tile: ClassVar[int] = 0
    """Which tile shows the whole picture."""
    prompt_format: ClassVar[str | None] = None
    """A chat template for checkpoints that have none."""

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        *,
        clip: ClipKeys | None,
        placement: Placement,
        fingerprint: str,
    ) -> None:
        parts, whole = self.parts, cast(Any, model)
        self._model = whole
        self._config = whole.config
        self._text_config = whole.config.get_text_config(decoder=True)
        self._processor = processor
        self.set_up(processor)
        self._decoder = resolve_module(model, parts.decoder)
        self._body = self._decoder if parts.body is None else resolve_module(model, parts.body)
        self._layers = resolve_module(self._decoder, parts.layers, nn.ModuleList)
        self._norm = resolve_module(self._decoder, parts.norm)
        self._embedding = resolve_module(self._decoder, parts.embedding)
        self._head = resolve_module(model, parts.head)
        self._projector = resolve_module(model, parts.projector)
        self._attentions = [resolve_module(block, parts.attention) for block in self._layers]
        self._feed_forwards = [resolve_module(block, parts.feed_forward) for block in self._layers]
        names = (parts.attention, parts.feed_forward)
        if all(hasattr(block, _NORMS[1]) for block in self._layers):
            names = _NORMS
        self._added = [
            (resolve_module(block, names[0]), resolve_module(block, names[1]))
            for block in self._layers
        ]
        tower = resolve_module(model, parts.tower)
        self._keys: ImageKeys = keys_of(
            tower, clip, whole=self.whole_tile, shown_alike=self.letterboxes
        )
        self.image_key_dim, self.image_key_model = self._keys.dim, self._keys.model
        tokenizer = processor.tokenizer
        super().__init__(
            fingerprint=fingerprint,
            placement=placement,
            chat=chat_of(
                processor,
                image_token_id=self._config.image_token_id,
                default_template=self.prompt_format,
                stop_token_ids=stop_tokens(model, tokenizer),
            ),
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        )
        grey = Image.new("RGB", (_USUAL_SIDE, _USUAL_SIDE), (127, 127, 127))
        self._usual_picture = self._written(self._prepared(grey))
        self.num_image_tokens = self._usual_picture.num_tokens
        if not self.num_image_tokens:
            raise CheckpointCorrupt("processor and model disagree about the image token")

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        clip: Path | None,
        placement: Placement,
        fingerprint: str,
        trust_remote_code: bool = False,
    ) -> StockBackbone:
        parts = cls.parts
        seeing = (parts.tower, parts.projector, parts.head)
        names = [path.rpartition(".")[2] for path in seeing]
        model = load_weights(cls.model_class, folder, placement, unpacked=names)
        return cls(
            model,
            load_processor(cls.processor_class, folder, trust_remote_code=trust_remote_code),
            clip=None if clip is None else ClipKeys(clip, placement),
            placement=placement,
            fingerprint=fingerprint,
        )

    @classmethod
    def outline(cls, folder: Path, *, trust_remote_code: bool = False) -> Self:
        """See `Backbone.outline`."""
        return cls(
            without_weights(cls.model_class, folder),
            load_processor(cls.processor_class, folder, trust_remote_code=trust_remote_code),
            clip=None,
            placement=Placement.resolve(),
            fingerprint="",
        )

    def see_with(self, eyes: Eyes) -> None:
        """See `Backbone.see_with`."""
        if eyes.config.clip_dim != self._keys.dim:
            raise CheckpointCorrupt(
                f"the eyes were made beside keys of {eyes.config.clip_dim} numbers, and this "
                f"model's have {self._keys.dim}",
                hint="Name other eyes, or none (--eyes none).",
            )
        self._keys = EyedKeys(self._keys, eyes, whole=self.whole_tile)
        self.image_key_dim, self.eyes, self.eyes_fingerprint = eyes.dim, eyes, eyes.fingerprint

    @torch.no_grad()
    def glance(self, image: ImageArray) -> Tensor:
        """See `Backbone.glance`."""
        seen = self.look(self._prepared(self._shown(image)))
        return glance_of(seen.last_hidden_state[self.whole_tile])

    @property
    def decoder(self) -> nn.Module:
        return self._decoder

    @property
    def body(self) -> nn.Module:
        return self._body

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
    def added(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        return self._added

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
        return int(self._text_config.hidden_size)

    @property
    def max_positions(self) -> int:
        return int(self._text_config.max_position_embeddings)

    @property
    def usual_picture(self) -> Picture:
        return self._usual_picture

    @property
    def patch_grid(self) -> tuple[int, int]:
        return self._usual_picture.grid or (1, self.num_image_tokens)

    def new_cache(self, *, whole: bool = False) -> Any:
        return DynamicCache() if whole else DynamicCache(config=self._text_config)

    @torch.no_grad()
    def compute_features(self, image: ImageArray) -> ImageFeatures:
        inputs = self._prepared(self._shown(image))
        seen, written = self.look(inputs), self._written(inputs)
        patches = torch.cat([tile.flatten(0, -2) for tile in seen.pooler_output])
        if len(patches) != written.num_tokens:
            raise PictureNotReadable(
                f"the model makes {len(patches)} image tokens of a picture of this shape, and its "
                f"processor writes {written.num_tokens}"
            )
        key = self._keys.key(image, seen)
        return ImageFeatures(
            patches=patches,
            key=key.image,
            sketch=key.sketch,
            pictures=(written,),
            extras={name: inputs[name] for name in self.kept} | self.more_extras(seen),
        )

    def picture_of(self, image: ImageArray) -> Picture:
        """See `Backbone.picture_of`."""
        return self._written(self._prepared(self._shown(image)))

    # What a family may say differently.

    def set_up(self, processor: Any) -> None:
        """Tell the processor, once, what only the model's configuration is sure to say."""
        del processor

    def look(self, inputs: Any) -> Any:
        """The model's own way from pixels to image tokens, `pooler_output` of what comes back."""
        given = {name: inputs[name] for name in self.tower_inputs}
        return self._model.get_image_features(**given, return_dict=True)

    def more_extras(self, seen: Any) -> dict[str, Tensor]:
        """Tensors that the decoder needs of what `look` gave, one row for each image token."""
        del seen
        return {}

    def text_for(self, inputs: Any) -> str:
        """What replaces the template's placeholder of this picture."""
        text: str = self._processor.replace_image_token(inputs, 0)
        return text

    def grid(self, inputs: Any, num_tokens: int) -> tuple[tuple[int, int] | None, int]:
        """Rows and columns of the patches that show the whole picture, and where they start."""
        del inputs
        side = round(num_tokens**0.5)
        return ((side, side) if side * side == num_tokens else None), 0

    def _shown(self, image: ImageArray) -> Image.Image:
        return to_pil(image) if self.letterboxes else Image.fromarray(np.ascontiguousarray(image))

    def _prepared(self, picture: Image.Image) -> Any:
        options = getattr(self._processor, "images_kwargs", None) or {}
        try:
            inputs = self._processor.image_processor(
                images=[picture], return_tensors="pt", **options
            )
        except (ValueError, ZeroDivisionError) as error:  # such as a side 200 times the other
            raise PictureNotReadable(
                f"the model's image processor refuses a picture of {picture.width}x"
                f"{picture.height} pixels: {error}"
            ) from error
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                kind = self.placement.dtype if value.is_floating_point() else value.dtype
                inputs[name] = value.to(self.device, kind)
        return inputs

    def _written(self, inputs: Any) -> Picture:
        token, runs = self.chat.image_token, []

        def once(run: re.Match[str]) -> str:
            runs.append(len(run.group()) // len(token))
            return token

        text = re.sub(f"(?:{re.escape(token)})+", once, self.text_for(inputs))
        grid, start = self.grid(inputs, sum(runs))
        return Picture(text, tuple(runs), grid, start)


def stop_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends an answer: the model's, its configuration's and the tokenizer's."""
    named = model.generation_config.eos_token_id
    stops = list(named) if isinstance(named, list) else [named]
    configured = model.config.get_text_config(decoder=True).eos_token_id
    stops += configured if isinstance(configured, list) else [configured]
    stops.append(tokenizer.eos_token_id)
    return tuple(dict.fromkeys(stop for stop in stops if isinstance(stop, int)))


def chat_of(
    processor: Any,
    *,
    image_token_id: int,
    default_template: str | None,
    stop_token_ids: Sequence[int],
) -> ChatTokenizer:
    """The chat tokenizer of a processor. Raises `CheckpointCorrupt` when a part is missing."""
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointCorrupt(
            "the checkpoint has no fast tokenizer (tokenizer.json), which token spans need"
        )
    template = chat_template(processor.chat_template or tokenizer.chat_template, default_template)
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if image_token is None:
        raise CheckpointCorrupt(f"the tokenizer has no token {image_token_id} for pictures")
    # An AddedToken in some processors, a string in others; some templates write another token.
    placeholder = getattr(processor, "image_token", None) or image_token
    placeholder = getattr(placeholder, "content", placeholder)

    def render(messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        try:
            text: str = tokenizer.apply_chat_template(
                messages,
                chat_template=template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise CheckpointUnsupported(
                f"the chat template cannot write a question about a picture: {error}",
                hint=TEMPLATE_HINT,
            ) from error
        return text

    return ChatTokenizer(
        backend,
        render,
        image_token=image_token,
        bos_token=tokenizer.bos_token,
        stop_token_ids=stop_token_ids,
        placeholder=placeholder,
    )
