"""One edit applied by hand: through the path that serves, chosen without a router.

A router is another part, which a backbone in training may not have yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.backbones.passes import Tap
from editing_core.editors.liveedit import LiveEdit
from editing_core.editors.visedit import VisEdit
from editing_core.intervention import apply
from editing_core.states import Intervention
from editing_core.training.rows import FrozenRows
from editing_core.training.sources import TrainingEdit
from editing_core.types import EditArtifact, RoutingDecision, RoutingKey, Rows


class Applied:
    """One edit in force on every row that shows a picture, as `EditedPass` applies it."""

    def __init__(self, batch: PreparedBatch, layer: int, made: Intervention | None) -> None:
        self.decisions = [RoutingDecision()] * len(batch.rows)
        self._batch = batch
        self._layer = layer
        shown = [b for b, row in enumerate(batch.rows) if row.features is not None]
        self._rows = dict.fromkeys(shown, (made,)) if made is not None else {}
        self._positions = None if made is None else made.positions

    def prefill_taps(self) -> dict[int, Tap] | None:
        """See `EditedPass.prefill_taps`."""
        batch = self._batch
        firsts = {b: 1 - batch.padding[b] - batch.rows[b].spans.last_prompt for b in self._rows}
        return self._tap(firsts, batch.padding, batch.pictures)

    def decode_taps(self, step: int) -> dict[int, Tap] | None:
        """See `EditedPass.decode_taps`."""
        if self._positions == "vision":
            return None
        return self._tap(dict.fromkeys(self._rows, step), [0] * len(self._batch.rows), {})

    def _tap(
        self, firsts: Mapping[int, int], padding: Sequence[int], pictures: Mapping[int, Rows]
    ) -> dict[int, Tap] | None:
        if not self._rows:
            return None

        def tap(hidden: torch.Tensor) -> torch.Tensor:
            return apply(hidden, self._rows, first_steps=firsts, padding=padding, pictures=pictures)

        return {self._layer: tap}


def encode(editor: LiveEdit | VisEdit, backbone: Backbone, edit: TrainingEdit) -> EditArtifact:
    """The edit as it would be stored, but for the keys: no router is asked."""
    own = edit.probes[0]
    ids = tuple(backbone.encode_target(edit.target))
    row = PromptRow(own.prompt, own.image, target_ids=ids)
    rows = FrozenRows(backbone, [row], layer=editor.edit_layer, acts=editor.positions)
    payload, metadata = editor.encode(rows.edit_states(0))
    nothing = np.zeros((1, 1), dtype=np.float32)
    return EditArtifact(
        editor=editor.name,
        edit_layer=editor.edit_layer,
        positions=editor.positions,
        payload=payload,
        key=RoutingKey(image=nothing[0], text=nothing, visual=nothing),
        backbone_fingerprint=backbone.fingerprint,
        editor_fingerprint="",
        router_fingerprint="",
        metadata=metadata,
    )
