"""GRACE: a codebook at one layer, keyed by the state of the last prompt token.

Hartvigsen et al., "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors"
(arXiv 2211.11031), section 3 and algorithm 1. An entry holds a key (the input of block `layer` at
the last prompt token), a value learned by gradient, a deferral radius and the label. Where the
state of a query lies within the nearest key's radius (Euclidean), the block's output there is
replaced by the value; elsewhere the model is the base model. A new edit

- far from every key adds an entry with the initial radius;
- within the nearest entry's reach and with its label widens that entry and goes on learning it;
- within reach and with another label adds an entry, and both radii become half their distance.

What is replaced is a setting, as in the authors' code: the last prompt token alone, or every row of
the prompt; answer tokens see the value through attention. Here values start from the block's own
output; an edit on the very state of another takes its entry over, where halving a distance of zero
would silence both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.editors.baselines.base import Acting, Baseline
from editing_core.editors.baselines.lesson import Lesson, descend
from editing_core.routing.base import RouterBase
from editing_core.types import EditRequest

# Two passes over one row in other company differ by rounding, about this much.
_SAME_STATE = 1e-3
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class GraceSettings:
    """`layer` counts from 0, at least 1; `radius` is the initial one, in the states' own scale."""

    layer: int = 1
    radius: float = 6.0
    rate: float = 1.0
    steps: int = 60
    stop_at: float = 0.05
    replaces: Literal["last", "prompt"] = "prompt"


@dataclass(slots=True, eq=False)
class _Entry:
    """`key` and `value` float32 `[hidden]`."""

    key: Tensor
    value: Tensor
    radius: float
    label: str


class Grace(Baseline):
    """See the module's docstring."""

    name = "grace"
    settings_type = GraceSettings
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "layer": (1, 2),
        "replaces": ("last", "prompt"),
        "radius": (4.0, 6.0, 8.0, 12.0, 16.0),
        "rate": (0.3, 1.0, 3.0),
        "steps": (60, 100),
        "stop_at": (0.05,),
    }

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        settings: GraceSettings = GraceSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, router, settings, seed=seed)
        if not 1 <= settings.layer < backbone.num_layers:
            raise ValueError(f"layer {settings.layer} is not in 1..{backbone.num_layers - 1}")
        self.reset()

    def reset(self) -> None:
        """Forget every edit."""
        self._entries: list[_Entry] = []
        self._keys: Tensor | None = None

    def edit(self, request: EditRequest) -> None:
        """Find the entry it belongs to, learn the value, then keep it."""
        layer, backbone = self.settings.layer, self.backbone
        lesson = Lesson.of(backbone, request)
        states = backbone.states(lesson.batch, (layer - 1, layer))
        at = lesson.last_prompt
        key, output = states[layer - 1][0, at].float(), states[layer]
        fresh = _Entry(key, output[0, at].float(), self.settings.radius, request.target)
        place, entry, split = self._placed(fresh)
        entry = replace(entry, value=self._learned(lesson, output, entry.value))
        if split is not None:
            # Just below the new one's, so that nothing lies within both.
            self._entries[split].radius = entry.radius - 1e-5
        self._entries[place : place + 1] = [entry]
        self._keys = torch.stack([kept.key for kept in self._entries])

    def _placed(self, fresh: _Entry) -> tuple[int, _Entry, int | None]:
        """Where an edit goes, as which entry, and which other entry is halved for it."""
        distance, nearest = self._nearest(fresh.key)
        if nearest is None:
            return 0, fresh, None
        near = self._entries[nearest]
        if distance <= _SAME_STATE:
            return nearest, replace(fresh, radius=near.radius), None
        if distance > near.radius + self.settings.radius:
            return len(self._entries), fresh, None
        if near.label == fresh.label:
            return nearest, replace(near, radius=max(near.radius, distance)), None
        return len(self._entries), replace(fresh, radius=distance / 2), nearest

    def begin(self, rows: Sequence[PromptRow]) -> tuple[PreparedBatch, Acting]:
        """Lay out `rows`; the codebook acts at prefill."""
        batch, acting = super().begin(rows)
        acting.fired = [0] * len(rows)
        if not self._entries:
            return batch, acting
        firsts, lasts = zip(*(self._replaced(batch, b) for b in range(len(rows))), strict=True)
        values: dict[int, Tensor] = {}

        def look_up(hidden: Tensor) -> None:
            for b, last in enumerate(lasts):
                distance, nearest = self._nearest(hidden[b, last].float())
                if nearest is not None and distance <= self._entries[nearest].radius:
                    values[b] = self._entries[nearest].value
                    acting.fired[b] = 1

        def put_values(hidden: Tensor) -> Tensor | None:
            if not values:
                return None
            changed = hidden.clone()
            for b, value in values.items():
                changed[b, firsts[b] : lasts[b] + 1] = value.to(hidden.dtype)
            return changed

        acting.taps = {self.settings.layer - 1: look_up, self.settings.layer: put_values}
        return batch, acting

    def _nearest(self, state: Tensor) -> tuple[float, int | None]:
        """Euclidean distance to the nearest key, and which it is."""
        if self._keys is None:
            return float("inf"), None
        distances = (self._keys - state).norm(dim=1)
        nearest = int(distances.argmin())
        return float(distances[nearest]), nearest

    def _replaced(self, batch: PreparedBatch, b: int) -> tuple[int, int]:
        """First and last column that a value replaces in row b."""
        padding = batch.padding[b]
        last = padding + batch.rows[b].spans.last_prompt
        return (last if self.settings.replaces == "last" else padding), last

    def _learned(self, lesson: Lesson, output: Tensor, start: Tensor) -> Tensor:
        settings = self.settings
        first, last = self._replaced(lesson.batch, 0)
        value = start.clone().requires_grad_()

        def loss() -> Tensor:
            replaced = value.to(output.dtype).expand(1, last + 1 - first, -1)
            states = torch.cat([output[:, :first], replaced, output[:, last + 1 :]], dim=1)
            return lesson.loss(self.backbone.upper(states, lesson.batch, settings.layer))

        # One vector cannot hold a long answer, and shows it soon.
        descend(
            [value],
            loss,
            rate=settings.rate,
            steps=settings.steps,
            stop_at=settings.stop_at,
            patience=_PATIENCE,
        )
        return value.detach()
