"""Trains LiveEdit's expert generator, in either form, on any backbone and any source of edits.

A draw is a few edits with their probes, teacher-forced in one batch: the lower half of the frozen
model runs once, the edits' experts are made of its states, experts of other edits are mixed into
every row as a router would, and the upper half runs with what they add. Which edits are drawn
depends on the seed and the number of the draw only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.config import MAX_TARGET_TOKENS
from editing_core.editors.liveedit import LiveEdit
from editing_core.editors.visedit import VisEdit
from editing_core.errors import ContextTooLong, TargetNotEncodable
from editing_core.objectives.base import LossTerms, Objective, ProbeBatch
from editing_core.training.mixing import mixing
from editing_core.training.rows import FrozenRows
from editing_core.training.sources import EditSource, Fits, Locality, TrainingEdit, TrainingProbe
from editing_core.training.targets import draw_target

_LONGEST_DRAWN = 24


@dataclass(frozen=True, eq=False)
class AskedProbe:
    """A probe of edit number `edit` of a draw, and the tokens it is teacher-forced on."""

    probe: TrainingProbe
    edit: int
    ids: tuple[int, ...]

    @property
    def row(self) -> PromptRow:
        """As the backbone takes it."""
        return PromptRow(self.probe.prompt, self.probe.image, target_ids=self.ids)


class EditorTask:
    """Draws edits and asks the objective for their loss.

    `own_targets` is the share of edits that teach what the source says; the others teach arbitrary
    text (`targets`), for an edit may teach anything. For an objective that needs no locality no row
    is out of scope (docs/decisions/0012).
    """

    def __init__(
        self,
        editor: LiveEdit | VisEdit,
        backbone: Backbone,
        source: EditSource,
        objective: Objective,
        *,
        seed: int,
        batch: int = 8,
        own_targets: float = 1.0,
    ) -> None:
        self.name = editor.name
        self.editor = editor
        self.module: nn.Module = editor.module
        self._backbone = backbone
        self._source = source
        self._objective = objective
        self._seed = seed
        self._batch = min(batch, len(source))
        self._own_targets = own_targets

    def loss(self, number: int) -> LossTerms:
        """The loss of a draw."""
        *_, batch = self.compose(np.random.default_rng([self._seed, number]))
        return self._objective.loss(batch, self.editor.batch_residual(batch.edits, batch.weights))

    def compose(self, rng: np.random.Generator) -> tuple[list[AskedProbe], FrozenRows, ProbeBatch]:
        """Edits with their probes, as asked, as the model reads them, as an objective does."""
        drawn = self._draw(rng)
        asked = self._ask(drawn, rng)
        rows = FrozenRows(
            self._backbone,
            [each.row for each in asked],
            layer=self.editor.edit_layer,
            acts=self.editor.positions,
        )
        kept = [each.probe.answer is not None for each in asked]
        pairs = [(each.edit, is_kept) for each, is_kept in zip(asked, kept, strict=True)]
        weights = torch.from_numpy(mixing(pairs, len(drawn), rng)).float()
        if self.editor.positions == "all":
            # The paper's weights are shrunk by the text gate as well; see `scores.WeightRule`.
            weights = weights * float(rng.uniform(0.8, 1.0))
        targets = rows.targets
        base = targets.new_zeros((), dtype=torch.float32).expand(*targets.shape, 1)
        return (
            asked,
            rows,
            ProbeBatch(
                edits=[rows.edit_states(i) for i in range(len(drawn))],
                roles=tuple(each.probe.role for each in asked),
                weights=weights.to(self._backbone.device),
                targets=targets,
                base_logits=rows.base_logits() if any(kept) else base,
                edited_hidden=rows.edited_hidden,
                head=rows.head,
            ),
        )

    @property
    def locality(self) -> Locality:
        """Which rows to be left alone are drawn."""
        return "both" if self._objective.needs_locality else "none"

    def choose(self, edit: TrainingEdit, rng: np.random.Generator) -> Sequence[TrainingProbe]:
        """Which of an edit's probes are asked; its own comes first."""
        del rng
        return edit.probes

    def _draw(self, rng: np.random.Generator) -> list[TrainingEdit]:
        numbers = rng.choice(len(self._source), self._batch, replace=False)
        return [self._source.draw(int(i), rng, locality=self.locality) for i in numbers]

    def _ask(self, edits: Sequence[TrainingEdit], rng: np.random.Generator) -> list[AskedProbe]:
        """The edits' own prompts first, in order."""
        targets = [self._target(edit.target, rng) for edit in edits]
        chosen = [self.choose(edit, rng) for edit in edits]
        own = [AskedProbe(probes[0], i, targets[i]) for i, probes in enumerate(chosen)]
        others = [
            AskedProbe(probe, i, targets[i] if probe.answer is None else self._kept(probe.answer))
            for i, probes in enumerate(chosen)
            for probe in probes[1:]
        ]
        return own + others

    def _target(self, text: str, rng: np.random.Generator) -> tuple[int, ...]:
        if rng.random() < self._own_targets:
            return tuple(self._backbone.encode_target(text))
        while True:
            try:
                ids = self._backbone.encode_target(draw_target(rng, (), plausible_share=0.0))
            except TargetNotEncodable:
                continue
            if len(ids) <= _LONGEST_DRAWN:
                return tuple(ids)

    def _kept(self, answer: str) -> tuple[int, ...]:
        """What a row to be left alone is forced on; of nothing, only the first token's place."""
        try:
            ids = tuple(self._backbone.encode_target(answer)) if answer else ()
        except TargetNotEncodable:
            ids = ()
        return ids[:MAX_TARGET_TOKENS] or self._backbone.stop_token_ids[:1]


def can_be_taught(backbone: Backbone) -> Fits:
    """Whether a prompt, with a picture of the usual size, and a target fit a backbone."""

    def fits(prompt: str, target: str) -> bool:
        try:
            ids = backbone.encode_target(target)
            backbone.lay_out(prompt, has_image=True, target_ids=ids)
        except (TargetNotEncodable, ContextTooLong):
            return False
        return len(ids) <= MAX_TARGET_TOKENS

    return fits
