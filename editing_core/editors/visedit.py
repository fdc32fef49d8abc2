"""VisEdit: an adapter lets the picture's rows look at the edit, and rewrites what they carry.

Published for one edit at a time (AAAI 2025, arXiv 2408.09916). Here each edit keeps an expert of
its own, found by the same router as every other, and the adapter's weights are shared by all of
them: see `experts.visual` for the arithmetic and for what differs from the paper.

The adapter alone brings about answers like those it was trained on. What it makes is therefore
tried on other views and under other words at once, and where the target is not the answer a
correction of low rank is fitted on the same rows. Any words will do, for the router has decided
whether an edit is meant before the adapter is asked: so they are shipped, the same for every edit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editing_core.augmentations import Strength, augmented
from editing_core.editors.base import Companion, Fit, Seen
from editing_core.editors.trained import TrainedEditor
from editing_core.experts.visual import (
    Correction,
    VisualEditAdapter,
    VisualExpert,
    VisualIntervention,
)
from editing_core.identity import image_digest
from editing_core.states import EditStates, Intervention, Norm
from editing_core.types import EditArtifact, EditRequest, Positions

KIND = "visedit"
_PATCHES = "patches"
_WORDINGS = Path(__file__).parents[1] / "configs" / "visedit" / "wordings.json"
_VIEWS = Strength(turn=18.0, scale=0.2, shift=0.08, light=0.25, blur=0.008)


@cache
def shipped_wordings() -> tuple[str, ...]:
    """Questions of many kinds, about any picture and about emblems."""
    return tuple(json.loads(_WORDINGS.read_text("utf-8")))


@dataclass(frozen=True, slots=True)
class VisEditConfig:
    """The shape of the editor and where it acts. Part of its fingerprint.

    `patches` is how many rows of the edit's own picture an expert keeps: those that the influence
    mapper holds to matter most. An expert is tried under `wordings` other words and on `views`
    other views; a correction has rank `rank` and takes at most `max_steps` steps of length `rate`.
    """

    hidden: int
    edit_layer: int
    width: int = 256
    heads: int = 8
    patches: int = 16
    views: int = 20
    wordings: int = 76
    rank: int = 48
    rate: float = 0.3
    max_steps: int = 400
    margin: float = 1.0


class VisEdit(TrainedEditor):
    """The editor. Immutable once loaded; `module` is what a trainer trains."""

    name = "visedit"
    positions: Positions = "vision"
    rows_at_once = 8

    kind = KIND
    config_type = VisEditConfig
    config: VisEditConfig

    def __init__(self, config: VisEditConfig, *, backbone_fingerprint: str = "") -> None:
        super().__init__(config, backbone_fingerprint=backbone_fingerprint)
        self.module: VisualEditAdapter = VisualEditAdapter(
            config.hidden, width=config.width, heads=config.heads
        )

    @torch.no_grad()
    def encode(
        self, states: EditStates, seen: Sequence[Seen] = ()
    ) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
        """Make the expert; see `Editor.encode`."""
        del seen
        expert = self.module.expert(states, patches=self.config.patches)
        return expert.payload(), {**expert.metadata(), _PATCHES: str(len(states.image))}

    def companions(self, request: EditRequest) -> Sequence[Companion]:
        """The edit's own words on other views, then other words on any of them."""
        seed = int(image_digest(request.image).removeprefix("sha256:")[:16], 16)
        rng = np.random.default_rng(seed)
        views = [augmented(request.image, rng, strength=_VIEWS) for _ in range(self.config.views)]
        other = [*request.rephrases, *shipped_wordings()[: self.config.wordings]]
        seen = [request.image, *views]
        found = [Companion(request.prompt, view) for view in views]
        found += [
            Companion(words, seen[int(rng.integers(len(seen)))], i + 1)
            for i, words in enumerate(other)
        ]
        return [found[i] for i in rng.permutation(len(found))]

    def fit(self, artifact: EditArtifact) -> Fit | None:
        """Steps on a correction, for an expert that does not hold on all of its companions."""
        config = self.config
        if not config.max_steps:
            return None
        anchor = artifact.payload["anchor"].float()
        size = float(anchor.square().mean().sqrt())
        patches = int(artifact.metadata[_PATCHES])
        correction = Correction.start(patches, config.rank, config.hidden, seed=0)
        return Fit(
            units={"place": config.rank**-0.5, "write": size},
            optimise=partial(torch.optim.Adam, lr=config.rate),
            max_steps=config.max_steps,
            margin=config.margin,
            adds={"place": correction.place, "write": correction.write},
        )

    def intervention(
        self,
        experts: Sequence[tuple[EditArtifact, float]],
        *,
        norms: Mapping[str, Norm] | None = None,
    ) -> Intervention:
        """Fuse one row's experts, on the device of the module; see `Editor.intervention`."""
        del norms
        device = next(self.module.parameters()).device
        return VisualIntervention(
            self.module,
            [
                (VisualExpert.from_payload(a.payload, a.metadata, device=device), weight)
                for a, weight in experts
            ],
        )

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """The correction, where there is one; else what is looked at. The anchor decides how much
        is let through, and stays."""
        del keeps
        return ("place", "write") if "write" in artifact.payload else ("source",)

    def start_from(self, edits: Sequence[EditStates]) -> None:
        """Fit the size of an untrained adapter's changes to the pictures of a few edits."""
        self.module.start_from(torch.cat([edit.image for edit in edits]))

    def batch_residual(self, edits: Sequence[EditStates], weights: Tensor) -> BatchResidual:
        """One residual for many rows that mix the same experts, each with weights of its own.

        What a trainer runs. Row for row it equals `intervention(...)` with that row's weights: it
        is given the picture's rows only, padded where another row shows a larger picture.

        Args:
            edits: the edits whose experts are made.
            weights: float32 `[rows, edits]`, 0 where an expert is not selected.
        """
        experts = [self.module.expert(e, patches=self.config.patches) for e in edits]
        return BatchResidual(self.module, experts, weights)


class BatchResidual:
    """`(pictures [rows, patches, hidden], steps) -> [rows, patches, hidden]`; steps play no part.

    What is added to one patch does not depend on how many others there are, so padding is harmless.
    """

    def __init__(
        self, adapter: VisualEditAdapter, experts: Sequence[VisualExpert], weights: Tensor
    ) -> None:
        self.experts = experts
        self._adapter = adapter
        self._weights = weights

    def __call__(self, states: Tensor, steps: Tensor) -> Tensor:
        del steps
        found: Tensor = self._adapter(states, self.experts, self._weights)
        return found
