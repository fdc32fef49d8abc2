"""What a picture's key is made by.

A CLIP or SigLIP tower that the model looks with anyway gives the key for nothing; any other model
gets a CLIPModel beside it, which looks at the letterboxed picture. Where that CLIPModel's tower is
the model's own, it runs once, and only the projection is taken from beside.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, CLIPModel

from editing_core.backbones.images import to_pil
from editing_core.backbones.weights import load_weights, reading, resolve_module
from editing_core.config import Placement
from editing_core.eyes.eyes import Eyes, glance_of
from editing_core.types import ImageArray, PictureKey


class ImageKeys(Protocol):
    """`dim` numbers a key, made by `model`."""

    dim: int
    model: str

    def key(self, image: ImageArray, seen: Any) -> PictureKey:
        """The key of `image`, of which the family's tower made `seen`."""
        ...


class TowerKeys:
    """The model's own tower, pooled as it was trained to be.

    CLIP: the class token after the last norm. SigLIP: its pooling head, and where the checkpoint
    has none, the mean of its patches. `whole` is the tile that shows the whole picture.
    """

    def __init__(self, tower: nn.Module, *, whole: int) -> None:
        config: Any = tower.config
        self._whole = whole
        self._norm: nn.Module | None = None
        self._head: nn.Module | None = None
        if config.model_type == "clip_vision_model":
            self._norm = resolve_module(tower, "post_layernorm")
        elif getattr(config, "vision_use_head", False):
            self._head = resolve_module(tower, "head")
        self.dim = int(config.hidden_size)
        self.model = "tower-mean" if self._norm is None and self._head is None else "tower-pooled"

    def key(self, image: ImageArray, seen: Any) -> PictureKey:
        """See `ImageKeys`; `seen.last_hidden_state` is `[tiles, patches, hidden]`."""
        del image
        return _normalised(self.pooled(seen.last_hidden_state[self._whole][None])[0])

    def pooled(self, states: Tensor) -> Tensor:
        """`[1, patches, hidden]` of one tile as one row, `[1, dim]`."""
        if self._norm is not None:
            return self._norm(states[:, 0])  # type: ignore[no-any-return]
        if self._head is not None:
            return self._head(states)  # type: ignore[no-any-return]
        return states.float().mean(1)


class ClipKeys:
    """The projected image embedding of a CLIPModel in a folder of its own."""

    model = "clip"

    def __init__(self, folder: Path, placement: Placement) -> None:
        # Never quantised: two placements of one folder make the same keys.
        placement = replace(placement, quantization="none")
        clip: Any = load_weights(CLIPModel, folder, placement)
        self._clip = clip
        self.tower = resolve_module(clip, "vision_model")
        self.projection = resolve_module(clip, "visual_projection")
        with reading(folder):
            self._processor = AutoImageProcessor.from_pretrained(folder)
        self._placement = placement
        self.dim = int(clip.config.projection_dim)

    @torch.no_grad()
    def key(self, image: ImageArray, seen: Any) -> PictureKey:
        """See `ImageKeys`."""
        del seen
        pixels = self._processor(images=to_pil(image), return_tensors="pt")["pixel_values"]
        pixels = pixels.to(self._placement.device, self._placement.dtype)
        return _normalised(self._clip.get_image_features(pixels).pooler_output[0])


class ProjectedKeys(TowerKeys):
    """A CLIPModel's keys where its tower is the model's own: what that has seen, projected."""

    def __init__(self, tower: nn.Module, clip: ClipKeys, *, whole: int) -> None:
        super().__init__(tower, whole=whole)
        self._projection = clip.projection
        self.dim, self.model = clip.dim, clip.model

    def pooled(self, states: Tensor) -> Tensor:
        """See `TowerKeys.pooled`; `dim` is the CLIPModel's."""
        return self._projection(super().pooled(states))  # type: ignore[no-any-return]


class EyedKeys:
    """The keys of a CLIP for the pictures that it knows, and those of the eyes for all others.

    `whole` is that of `TowerKeys`.
    """

    def __init__(self, own: ImageKeys, eyes: Eyes, *, whole: int) -> None:
        self._own = own
        self._eyes = eyes
        self._whole = whole
        self.dim, self.model = eyes.dim, own.model

    def key(self, image: ImageArray, seen: Any) -> PictureKey:
        """See `ImageKeys`."""
        glance = glance_of(seen.last_hidden_state[self._whole])
        return self._eyes.key(image, self._own.key(image, seen).image, glance)


def keys_of(tower: nn.Module, clip: ClipKeys | None, *, whole: int, shown_alike: bool) -> ImageKeys:
    """The keys that `clip` makes, and without one those of the model's own `tower`.

    `shown_alike`: the tower is shown the letterboxed picture, as `clip` would be. Then a tower with
    the same weights need not run twice. `whole` is that of `TowerKeys`.
    """
    if clip is None:
        return TowerKeys(tower, whole=whole)
    if shown_alike and _same_weights(tower, clip.tower):
        return ProjectedKeys(tower, clip, whole=whole)
    return clip


def _same_weights(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[name]) for name, tensor in ours.items()
    )


def _normalised(pooled: Tensor) -> PictureKey:
    key = pooled.float().cpu().numpy().astype(np.float64)
    key /= max(float(np.linalg.norm(key)), 1e-12)
    return PictureKey(key.astype(np.float32))
