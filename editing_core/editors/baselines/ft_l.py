"""FT-L: fine-tune one decoder layer's feed-forward maps, within a bound on how far weights move.

Zhu et al., "Modifying Memories in Transformer Models" (arXiv 2012.00363), section 3: minimise the
loss of the new fact under an L-infinity constraint on the change of the weights, one layer alone;
in the form in which Meng et al., "Locating and Editing Factual Associations in GPT" (arXiv
2202.05262), section 3.1, call it FT+L: Adam on one feed-forward layer, stopped early, weights
clamped after each step. Edits come one after another and each starts from what the last one left.

The bound may be kept around the base model's weights (the first paper's constraint, over the
whole sequence) or around those that the edit found (the second's code); tuning tries both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.backbones.base import Backbone
from editing_core.backbones.weights import resolve_module
from editing_core.editors.baselines.base import Baseline
from editing_core.editors.baselines.lesson import Lesson, descend
from editing_core.routing.base import RouterBase
from editing_core.types import EditRequest


@dataclass(frozen=True, slots=True)
class FtLSettings:
    """`layer` counts from 0 and is at least 1. `bound` is the greatest change of any one weight."""

    layer: int = 1
    rate: float = 1e-3
    steps: int = 30
    stop_at: float = 0.1
    bound: float = 0.02
    around: Literal["base", "previous"] = "base"


class FtL(Baseline):
    """See the module's docstring."""

    name = "ft_l"
    settings_type = FtLSettings
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "layer": (1, 2, 3),
        "rate": (1e-4, 3e-4, 1e-3, 3e-3),
        "bound": (0.005, 0.01, 0.02, 0.1),
        "around": ("base", "previous"),
        "stop_at": (0.02, 0.1, 0.5),
        "steps": (30,),
    }

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        settings: FtLSettings = FtLSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, router, settings, seed=seed)
        if not 1 <= settings.layer < backbone.num_layers:
            raise ValueError(f"layer {settings.layer} is not in 1..{backbone.num_layers - 1}")
        feed_forward = resolve_module(backbone.layers[settings.layer], "mlp")
        self._maps = [m for m in feed_forward.modules() if isinstance(m, nn.Linear)]
        self._weights: list[Tensor] | None = None

    def reset(self) -> None:
        """Forget every edit."""
        self._weights = None

    def edit(self, request: EditRequest) -> None:
        """Fine-tune from where the last edit ended."""
        settings, backbone = self.settings, self.backbone
        lesson = Lesson.of(backbone, request)
        base = [module.weight.detach().float() for module in self._maps]
        found = base if self._weights is None else self._weights
        centre = base if settings.around == "base" else found
        weights = [weight.clone().requires_grad_() for weight in found]
        # Nothing below the layer changes: its input is the same at every step.
        states = backbone.lower(lesson.batch, settings.layer - 1)

        @torch.no_grad()
        def clamp() -> None:
            for weight, middle in zip(weights, centre, strict=True):
                weight.clamp_(middle - settings.bound, middle + settings.bound)

        with self._acting_as(weights):
            descend(
                weights,
                lambda: lesson.loss(backbone.upper(states, lesson.batch, settings.layer - 1)),
                rate=settings.rate,
                steps=settings.steps,
                stop_at=settings.stop_at,
                after_step=clamp,
            )
        self._weights = [weight.detach() for weight in weights]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """While it lasts, the layer's maps act with the edited weights."""
        if self._weights is None:
            yield
            return
        with self._acting_as(self._weights):
            yield

    @contextmanager
    def _acting_as(self, weights: Sequence[Tensor]) -> Iterator[None]:
        # A hook answers for each map, so that there is nothing to restore.
        with ExitStack() as stack:
            for module, weight in zip(self._maps, weights, strict=True):
                handle = module.register_forward_hook(_with_weight(weight))
                stack.callback(handle.remove)
            yield


def _with_weight(weight: Tensor) -> Any:
    def hook(module: nn.Linear, args: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        return F.linear(args[0], weight.to(args[0].dtype), module.bias)

    return hook
