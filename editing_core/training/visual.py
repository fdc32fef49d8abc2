"""Trains VisEdit's adapter and its influence mapper on any backbone and any source of edits.

As `general`, with a loss of the mapper's own beside the objective's: its gates go up on pictures
that an edit is about and down on others; and on some patches of one picture of each draw its scores
follow what noise on them does to attention above the edit layer (`attribution.influence`), measured
on the spot: a map of every picture would fill a disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from editing_core.attribution.influence import Perturbation, influence
from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.backbones.watching import watching
from editing_core.editors.visedit import BatchResidual, VisEdit
from editing_core.objectives.base import IN_SCOPE, LossTerms
from editing_core.training.general import AskedProbe, EditorTask
from editing_core.training.rows import FrozenRows
from editing_core.training.sources import Locality, TrainingEdit, TrainingProbe

_MAPPED_PATCHES = 24
# Influence spans orders of magnitude, a gate that must stay open does not: read the scores' shape
# as if they lay further apart than they do.
_SHARPNESS = 4.0
_SHAPE_WEIGHT = 0.2
_NO_WINDOW = Perturbation(draws=1, radius=0)


@dataclass(frozen=True, eq=False)
class Influence:
    """Of some patches of a picture, whose rows at the edit layer are `image` `[patches, hidden]`.

    `patches` are their numbers among those rows; `shares` float32, summing to 1.
    """

    image: Tensor
    patches: list[int]
    shares: Tensor


class VisualTask(EditorTask):
    """Every edit is asked itself and once more, reworded or on another view; and is put in force on
    a picture that it must leave alone. Questions on its own picture it could not tell apart: a
    picture's rows come before the question. They are the router's."""

    def __init__(
        self, editor: VisEdit, *given: Any, mapper_weight: float = 0.5, **more: Any
    ) -> None:
        super().__init__(editor, *given, **more)
        self._mapper = editor.module.mapper
        self._mapper_weight = mapper_weight

    @property
    def locality(self) -> Locality:
        """A row without a picture cannot be changed."""
        return "picture" if self._objective.needs_locality else "none"

    def choose(self, edit: TrainingEdit, rng: np.random.Generator) -> Sequence[TrainingProbe]:
        """See the class."""
        own, rephrase, view, *others = edit.probes
        others = [probe for probe in others if probe.image is not view.image]
        return [own, rephrase if rng.random() < 0.5 else view, *others]

    def loss(self, number: int) -> LossTerms:
        """The objective's terms and the mapper's own."""
        rng = np.random.default_rng([self._seed, number])
        asked, rows, batch = self.compose(rng)
        residual = self.editor.batch_residual(batch.edits, batch.weights)
        assert isinstance(residual, BatchResidual)
        terms = self._objective.loss(batch, residual)
        anchors = torch.stack([expert.anchor for expert in residual.experts])
        chosen = int(rng.integers(len(batch.edits)))
        measured = measure(self._backbone, asked[chosen].row, self.editor.edit_layer, rng)
        mapper = self._gates(asked, rows, anchors) + self._shape(measured, anchors[chosen])
        return replace(terms, terms={**terms.terms, "mapper": self._mapper_weight * mapper})

    def _gates(self, asked: Sequence[AskedProbe], rows: FrozenRows, anchors: Tensor) -> Tensor:
        """Up where a picture is the edit's, down where it is another; each side's mean."""
        up: list[Tensor] = []
        down: list[Tensor] = []
        for b, each in enumerate(asked):
            scores = self._mapper(rows.picture(b)[None], anchors[each.edit][None])[0, :, 0]
            is_own = each.probe.role in IN_SCOPE
            (up if is_own else down).append(logsigmoid(scores if is_own else -scores).mean())
        loss = -torch.stack(up).mean()
        return loss - torch.stack(down).mean() if down else loss

    def _shape(self, measured: Influence, anchor: Tensor) -> Tensor:
        scores = self._mapper(measured.image[None], anchor[None])[0, measured.patches, 0]
        shape = (_SHARPNESS * scores).log_softmax(-1)
        found: Tensor = (measured.shares.to(scores.device) * shape).sum()
        return -_SHAPE_WEIGHT * found


@torch.no_grad()
def measure(backbone: Backbone, row: PromptRow, layer: int, rng: np.random.Generator) -> Influence:
    """The influence of up to 24 random patches of a row's picture on its first answer token.

    By noise on single patches at the inputs of every attention module above `layer`.
    """
    batch = backbone.prepare([replace(row, target=None, target_ids=())])
    (only,) = batch.rows
    states = backbone.lower(batch, layer)
    with watching(backbone.attentions[layer + 1 :]) as calls:
        backbone.upper_states(states, batch, layer)
    assert only.features is not None
    picture = (only.features.pictures or (backbone.usual_picture,))[0]
    grid = picture.grid or (1, picture.num_tokens)
    own = only.spans.vision_rows
    columns = own if isinstance(own, list) else range(own.start, own.stop)
    count = grid[0] * grid[1]
    patches = sorted(int(i) for i in rng.permutation(count)[:_MAPPED_PATCHES])
    found = influence(
        [calls[place] for place in sorted(calls)],
        first_patch=columns[picture.grid_start],
        grid=grid,
        noise=replace(_NO_WINDOW, seed=int(rng.integers(2**31))),
        patches=patches,
    )
    shares = found / found.sum().clamp(min=1e-9)
    return Influence(
        image=states[0, own].float(),
        patches=[picture.grid_start + patch for patch in patches],
        shares=shares,
    )
