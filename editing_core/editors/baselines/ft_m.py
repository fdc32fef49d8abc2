"""FT-M: fine-tune the vision side, which for a model with a projector is the projector.

Cheng et al., "Can We Edit Multimodal Large Language Models?" (MMEdit, arXiv 2310.08475), fine-tune
the vision block as one of their baselines; Chen et al., "Lifelong Knowledge Editing for Vision
Language Models with Low-Rank Mixture-of-Experts" (LiveEdit, arXiv 2411.15432), table 1, call it
FT-M beside FT-L. Edits come one after another, each from where the last one ended: Adam with an
early stop, and the same kind of bound on the change of each weight as FT-L.

A question without a picture cannot change: its text locality is 1 by construction. Picture features
are computed here and never enter the backbone's cache, which is for the base model's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures
from editing_core.editors.baselines.base import Baseline
from editing_core.editors.baselines.lesson import Lesson, descend
from editing_core.identity import image_digest
from editing_core.routing.base import RouterBase
from editing_core.types import EditRequest, ImageArray

_PICTURES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class FtMSettings:
    """`bound` is the greatest change of any one weight from the base model's."""

    rate: float = 6e-4
    steps: int = 20
    stop_at: float = 0.1
    bound: float = 0.05


class FtM(Baseline):
    """See the module's docstring."""

    name = "ft_m"
    settings_type = FtMSettings
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "rate": (3e-4, 6e-4, 1e-3),
        "bound": (0.01, 0.05, float("inf")),
        "stop_at": (0.02, 0.1, 0.5),
        "steps": (20, 30),
    }

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        settings: FtMSettings = FtMSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, router, settings, seed=seed)
        self._weights: dict[str, Tensor] | None = None
        self._seen: OrderedDict[str, tuple[Tensor, NDArray[np.float32]]] = OrderedDict()

    def reset(self) -> None:
        """Forget every edit."""
        self._weights = None

    def edit(self, request: EditRequest) -> None:
        """Fine-tune from where the last edit ended."""
        settings, backbone = self.settings, self.backbone
        lesson = Lesson.of(backbone, request)
        start, stop = lesson.vision
        patches, _ = self._look(request.image)
        embeddings = backbone.embed(lesson.batch)
        base = {n: p.detach().float() for n, p in backbone.projector.named_parameters()}
        found = base if self._weights is None else self._weights
        weights = {name: tensor.clone().requires_grad_() for name, tensor in found.items()}

        @torch.no_grad()
        def clamp() -> None:
            for name, weight in weights.items():
                weight.clamp_(base[name] - settings.bound, base[name] + settings.bound)

        def loss() -> Tensor:
            shown = self._project(patches, weights)
            inputs = torch.cat([embeddings[:, :start], shown[None], embeddings[:, stop:]], dim=1)
            return lesson.loss(backbone.forward(lesson.batch, embeddings=inputs))

        descend(
            list(weights.values()),
            loss,
            rate=settings.rate,
            steps=settings.steps,
            stop_at=settings.stop_at,
            after_step=clamp,
        )
        self._weights = {name: weight.detach() for name, weight in weights.items()}

    def picture_for(self, image: ImageArray) -> ImageArray | ImageFeatures:
        """The picture as the edited projector shows it; its image key stays."""
        if self._weights is None:
            return image
        patches, key = self._look(image)
        with torch.no_grad():
            return ImageFeatures(self._project(patches, self._weights), key)

    def _project(self, patches: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        cast = {name: weight.to(patches.dtype) for name, weight in weights.items()}
        shown: Tensor = functional_call(self.backbone.projector, cast, (patches,))
        return shown[0]

    def _look(self, image: ImageArray) -> tuple[Tensor, NDArray[np.float32]]:
        """What the projector is given for a picture, `[1, patches, width]`, and the image key."""
        digest = image_digest(image)
        if digest in self._seen:
            self._seen.move_to_end(digest)
            return self._seen[digest]
        given: list[Tensor] = []

        def keep(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            given.append(args[0])

        handle = self.backbone.projector.register_forward_pre_hook(keep)
        try:
            features = self.backbone.compute_features(image)
        finally:
            handle.remove()
        self._seen[digest] = given[0], features.key
        if len(self._seen) > _PICTURES_KEPT:
            self._seen.popitem(last=False)
        return self._seen[digest]
