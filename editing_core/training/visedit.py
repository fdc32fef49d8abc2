"""Trains VisEdit's adapter and its influence mapper on a frozen backbone.

What the adapter must do comes from the objective, as for every editor. The mapper has a loss of
its own beside it (section "training" of the method, `l_IM`): on some of a picture's rows its scores
follow what noise on them does to attention above the edit layer, and its gates go up on pictures
that the edit is about, and down on others. The measured influence is that of the very picture whose
rows the mapper sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from editing_core.attribution.influence import Perturbation, influence
from editing_core.backbones.base import Backbone
from editing_core.backbones.watching import watching
from editing_core.editors.visedit import BatchResidual, VisEdit
from editing_core.objectives.base import IN_SCOPE, LossTerms, Objective
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.liveedit import LiveEditTask, PrefixBank, Probe, Teachable
from editing_core.training.scenes import Asked
from editing_core.training.trainer import Notify

OTHER_PICTURE = "other_picture"
_MAPPED_ROWS = 24
# Influence spans orders of magnitude, a gate that must stay open does not: read the scores' shape
# as if they lay further apart than they do.
_SHARPNESS = 4.0
_SHAPE_WEIGHT = 0.2

InfluenceMaps = Mapping[Asked, Tensor]
"""Of some questions, each patch's share of the influence: float32 `[patches]`, summing to 1."""


def measure_influence(
    backbone: Backbone,
    frozen: FrozenDecoder,
    bank: PrefixBank,
    *,
    draws: int = 1,
    notify: Notify | None = None,
) -> InfluenceMaps:
    """The maps of each subject's first question on its first and its second view.

    By `attribution.influence` at every attention module above the edit layer. Rewordings have none
    of their own: which picture is seen is what matters to the mapper.
    """
    maps: dict[Asked, Tensor] = {}
    noise = Perturbation(draws=draws)
    for number, items in enumerate(bank.subjects):
        for asked in (items[0].edit, items[0].view):
            found = _influence_on(backbone, frozen, asked, replace(noise, seed=number))
            maps[asked] = found / found.sum().clamp(min=1e-9)
        if notify is not None:
            notify("influence", number + 1, len(bank.subjects))
    return maps


@torch.no_grad()
def _influence_on(
    backbone: Backbone, frozen: FrozenDecoder, asked: Asked, noise: Perturbation
) -> Tensor:
    last = frozen.answer([asked.prefix], [torch.tensor([asked.last_id])]).states[0]
    row = torch.cat([asked.query_states().hidden, last])
    above = backbone.attentions[frozen.layer + 1 :]
    with watching(above) as calls:
        frozen.whole([row])
    return influence(
        [calls[place] for place in sorted(calls)],
        first_patch=asked.picture.vision[0],
        grid=backbone.patch_grid,
        noise=noise,
    ).flatten()


class VisEditTask(LiveEditTask):
    """Every edit is asked itself and once more, reworded or on another view; a quarter of them are
    also put in force on another subject's picture, which they must leave alone."""

    def __init__(
        self,
        editor: VisEdit,
        backbone: Backbone,
        frozen: FrozenDecoder,
        bank: PrefixBank,
        objective: Objective,
        *,
        seed: int,
        batch: int = 24,
        plausible_share: float = 0.5,
        maps: InfluenceMaps | None = None,
        mapper_weight: float = 0.5,
    ) -> None:
        super().__init__(
            editor,
            backbone,
            frozen,
            bank,
            objective,
            seed=seed,
            batch=batch,
            plausible_share=plausible_share,
        )
        self._adapter = editor.module
        self._maps = maps or {}
        self._mapper_weight = mapper_weight

    def loss(self, step: int) -> LossTerms:
        """The objective's terms and the mapper's own."""
        rng = np.random.default_rng([self._seed, step])
        probes, batch = self.compose(rng)
        residual = self.editor.batch_residual(batch.edits, batch.weights)
        assert isinstance(residual, BatchResidual)
        terms = self._objective.loss(batch, residual)
        anchors = torch.stack([expert.anchor for expert in residual.experts])
        mapper = self._mapper_loss(probes, anchors, rng)
        return replace(terms, terms={**terms.terms, "mapper": self._mapper_weight * mapper})

    def probes(
        self, chosen: Sequence[Teachable], others: Sequence[Teachable], rng: np.random.Generator
    ) -> list[Probe]:
        """See the class; `others` are questions on the edits' own pictures, which the adapter
        cannot tell apart: a picture's rows come before the question. They are the router's."""
        found = [Probe("edit", i, item.edit) for i, item in enumerate(chosen)]
        for i, item in enumerate(chosen):
            if rng.random() < 0.5:
                found.append(Probe("rephrase", i, item.rephrase))
            else:
                found.append(Probe("view", i, item.view))
        if others:
            for i in range(0, len(chosen), 4):
                shown = chosen[(i + 2) % len(chosen)]
                if shown.edit.picture is not chosen[i].edit.picture:
                    found.append(Probe(OTHER_PICTURE, i, shown.view, shown.answer))
        return found

    def _mapper_loss(
        self, probes: Sequence[Probe], anchors: Tensor, rng: np.random.Generator
    ) -> Tensor:
        images = torch.stack([p.asked.picture.image_states.float() for p in probes])
        owners = torch.tensor([p.edit for p in probes])
        scores = self._adapter.mapper(images, anchors)
        own = scores[torch.arange(len(probes)), :, owners]
        in_scope = torch.tensor([p.role in IN_SCOPE for p in probes])
        loss = -logsigmoid(own[in_scope]).mean()
        if not bool(in_scope.all()):
            loss = loss - logsigmoid(-own[~in_scope]).mean()
        mapped = [i for i, p in enumerate(probes) if p.asked in self._maps]
        if mapped:
            patches = own.shape[1]
            seen = torch.from_numpy(rng.permutation(patches)[: min(_MAPPED_ROWS, patches)])
            wanted = torch.stack([self._maps[probes[i].asked][seen] for i in mapped])
            wanted = wanted / wanted.sum(-1, keepdim=True).clamp(min=1e-9)
            shape = (_SHARPNESS * own[mapped][:, seen]).log_softmax(-1)
            loss = loss - _SHAPE_WEIGHT * (wanted * shape).sum(-1).mean()
        return loss
