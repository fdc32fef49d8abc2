"""VisEdit: an adapter lets the picture's rows look at the edit, and rewrites what they carry.

Published for one edit at a time (AAAI 2025, arXiv 2408.09916). Here each edit keeps an expert of
its own, found by the same router as every other, and the adapter's weights are shared by all of
them: see `experts.visual` for the arithmetic and for what differs from the paper.

The adapter alone brings about answers like those it was trained on. What it makes is therefore
tried on other views and under other words at once. Where the target is not the answer, the edit's
own picture, as the adapter has rewritten it, is fitted on such rows and shown in place of the
query's. Any words will do, for the router has decided whether an edit is meant before the adapter
is asked: so they are shipped, the same for every edit.
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

from editing_core.augmentations import Strength, augmented, shrunk
from editing_core.editors.base import Companion, Fit, Seen
from editing_core.editors.trained import TrainedEditor
from editing_core.experts.visual import (
    ShownPicture,
    VisualEditAdapter,
    VisualExpert,
    VisualIntervention,
    read_expert,
)
from editing_core.identity import image_digest
from editing_core.states import EditStates, Intervention, Norm
from editing_core.types import EditArtifact, EditRequest, Positions

KIND = "visedit"
_WORDINGS = Path(__file__).parents[1] / "configs" / "visedit" / "wordings.json"
_VIEWS = Strength(
    turn=22.0,
    scale=0.2,
    shift=0.04,
    light=0.3,
    blur=0.012,
    away=0.55,
    shear=0.15,
    cast=0.1,
    grain=10.0,
)
_VIEW_SIDE = 512
"""Pixels along the longer side of a view at most: there are a hundred of them."""

_OWN_WORDS = 0.15
"""Of the rows that an expert is tried on, the share that asks in the edit's words: its prompt and
the rephrases that came with it."""


@cache
def shipped_wordings() -> tuple[str, ...]:
    """Questions of many kinds, about any picture and about emblems; then every topic in every
    form."""
    found = json.loads(_WORDINGS.read_text("utf-8"))
    composed = [form.format(topic) for form in found["forms"] for topic in found["topics"]]
    # In an order of no meaning, so that any number of them is a mixture.
    order = np.random.default_rng(0).permutation(len(composed))
    return (*found["questions"], *(composed[i] for i in order))


@dataclass(frozen=True, slots=True)
class VisEditConfig:
    """The shape of the editor and where it acts. Part of its fingerprint.

    `patches` is how many rows of the edit's own picture an expert keeps: those that the influence
    mapper holds to matter most. An expert is tried in up to `turns` turns of rows, drawn of `views`
    other views and `wordings` other words; `settled` turns in succession that hold are enough. What
    is fitted has rank `rank` and takes at most `max_steps` steps of length `rate`, by which every
    logit of the target is to lead by `reach`; `margin` will do.
    """

    hidden: int
    edit_layer: int
    width: int = 256
    heads: int = 8
    patches: int = 16
    views: int = 100
    wordings: int = 364
    turns: int = 80
    settled: int = 8
    rank: int = 48
    rate: float = 1.0
    max_steps: int = 400
    reach: float = 3.0
    margin: float = 1.0


class VisEdit(TrainedEditor):
    """The editor. Immutable once loaded; `module` is what a trainer trains."""

    name = "visedit"
    positions: Positions = "vision"
    rows_at_once = 16

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
        return expert.payload(), expert.metadata()

    @torch.no_grad()
    def fit(self, request: EditRequest, states: EditStates, artifact: EditArtifact) -> Fit | None:
        """Steps on the edit's own picture, for an expert that does not hold as it is."""
        config = self.config
        if not config.max_steps:
            return None
        own, picture = VisualIntervention(self.module, [(self._read(artifact), 1.0)]), states.image
        shown = picture + own.residual(picture, torch.zeros(len(picture)))
        begins = ShownPicture.of(shown, rank=config.rank).payload()
        return Fit(
            units={name: float(t.float().square().mean().sqrt()) for name, t in begins.items()},
            # Both factors are matrices: orthogonal steps reach in 400 what Adam's do not.
            optimise=partial(
                torch.optim.Muon,
                lr=config.rate,
                weight_decay=0.0,
                momentum=0.9,
                adjust_lr_fn="match_rms_adamw",
            ),
            max_steps=config.max_steps,
            margin=config.margin,
            reach=config.reach,
            is_slowed=True,
            companions=self._other_rows(request),
            settled=config.settled,
            begins=begins,
        )

    def _other_rows(self, request: EditRequest) -> list[Companion]:
        """Other views of the picture, under the edit's words and others, drawn at random."""
        seed = int(image_digest(request.image).removeprefix("sha256:")[:16], 16)
        rng = np.random.default_rng(seed)
        small = shrunk(request.image, _VIEW_SIDE)
        seen = [augmented(small, rng, strength=_VIEWS) for _ in range(self.config.views)]
        seen.append(request.image)
        own = [request.prompt, *request.rephrases]
        others = list(shipped_wordings()[: self.config.wordings]) or own
        words, rows = [*own, *others], self.config.turns * (self.rows_at_once - 1)
        views = rng.integers(len(seen), size=rows)
        other = len(own) + rng.integers(len(others), size=rows)
        is_own = rng.random(rows) < _OWN_WORDS
        drawn = np.where(is_own, rng.integers(len(own), size=rows), other)
        return [
            Companion(words[word], seen[view], int(word))
            for word, view in zip(drawn, views, strict=True)
        ]

    def intervention(
        self,
        experts: Sequence[tuple[EditArtifact, float]],
        *,
        norms: Mapping[str, Norm] | None = None,
    ) -> Intervention:
        """Fuse one row's experts, on the device of the module; see `Editor.intervention`."""
        del norms
        return VisualIntervention(self.module, [(self._read(a), weight) for a, weight in experts])

    def movable(self, artifact: EditArtifact, *, keeps: bool) -> tuple[str, ...]:
        """The picture that is shown, where there is one; else what is looked at. The anchor decides
        how much is let through, and stays."""
        del keeps
        return ("place", "write") if "write" in artifact.payload else ("source",)

    def _read(self, artifact: EditArtifact) -> VisualExpert | ShownPicture:
        device = next(self.module.parameters()).device
        return read_expert(artifact.payload, artifact.metadata, device=device)

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
