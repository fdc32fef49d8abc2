"""Teacher-forced rows on any backbone: the frozen lower half once, the upper half with a residual.

    rows = FrozenRows(backbone, [PromptRow(prompt, image, target_ids=ids), ...], layer=20, acts=...)
    rows.base_logits()                      the base model's, by the same pass with nothing added
    rows.edited_hidden(residual)            with gradient to the residual and to nothing else

Everything goes through the backbone's own passes, so positions, masks and pictures are those that
are served, whatever the family makes of them; and there is one copy of the model. `training.frozen`
is the faster way for backbones whose prefixes can be kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.objectives.base import Residual
from editing_core.objectives.losses import IGNORED
from editing_core.states import EditStates
from editing_core.types import Positions


class FrozenRows:
    """One batch, run up to the edit layer when it is made.

    `acts` says which columns a residual is given, and may change: the answer's, the picture's, or
    all of a row's, as `intervention.apply` gives them. Each row's are padded on the right.
    """

    def __init__(
        self, backbone: Backbone, rows: Sequence[PromptRow], *, layer: int, acts: Positions
    ) -> None:
        self._backbone = backbone
        self._layer = layer
        self._batch = backbone.prepare(rows)
        with torch.no_grad():
            self._states = backbone.lower(self._batch, layer)  # [rows, T, hidden]
        self._firsts = [
            row.spans.last_prompt + pad
            for row, pad in zip(self._batch.rows, self._batch.padding, strict=True)
        ]
        self._answer, self._answered = self._index(
            [
                range(first, first + len(ids))
                for first, ids in zip(self._firsts, self._ids, strict=True)
            ]
        )
        self._acting, self._acts = self._index(self._columns(acts))

    @property
    def targets(self) -> Tensor:
        """Int64 `[rows, n]`, `IGNORED` where padded."""
        ids = [torch.tensor(ids, device=self._states.device) for ids in self._ids]
        return pad_sequence(ids, batch_first=True, padding_value=IGNORED)

    def edit_states(self, row: int) -> EditStates:
        """What an editor reads of a row, as `EditableModel.encode` gives it."""
        ids = self._ids[row]
        return EditStates(
            hidden=self._states[row, self._batch.padding[row] :].float(),
            spans=self._batch.rows[row].spans,
            target_ids=torch.tensor(ids, device=self._states.device),
            target_embeddings=self._backbone.embed_tokens(ids).float(),
        )

    def picture(self, row: int) -> Tensor:
        """The picture's rows at the edit layer, float32 `[patches, hidden]`."""
        return self._states[row, self._batch.pictures[row]].float()

    @torch.no_grad()
    def base_logits(self) -> Tensor:
        """The unedited model's: float32 `[rows, n, vocab]`."""
        return self.head(self._upper(self._states))

    def edited_hidden(self, residual: Residual) -> Tensor:
        """What the output head reads of the answer: float32 `[rows, n, hidden]`."""
        index = self._acting[..., None].expand(-1, -1, self._states.shape[2])
        firsts = torch.tensor(self._firsts, device=index.device)
        steps = self._acting - firsts[:, None] + 1
        added = residual(self._states.gather(1, index).float(), steps) * self._acts[..., None]
        return self._upper(self._states.scatter_add(1, index, added.to(self._states.dtype)))

    def head(self, hidden: Tensor) -> Tensor:
        """Float32 logits of what `edited_hidden` gave."""
        return self._backbone.logits(hidden.to(self._states.dtype))

    @property
    def _ids(self) -> list[tuple[int, ...]]:
        return [row.ids[slice(*row.spans.target)] for row in self._batch.rows]

    def _columns(self, acts: Positions) -> list[Sequence[int]]:
        width = self._states.shape[1]
        if acts == "vision":
            pictures = self._batch.pictures
            every = range(width)
            found = [pictures.get(b, []) for b in range(len(self._batch.rows))]
            return [rows if isinstance(rows, list) else every[rows] for rows in found]
        if acts == "all":
            return [range(pad, width) for pad in self._batch.padding]
        return [range(first, width) for first in self._firsts]

    def _index(self, columns: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Columns as int64 `[rows, most]`, 0 where a row has fewer, and bool where it has them."""
        device = self._states.device
        lists = [torch.tensor(list(row), dtype=torch.int64, device=device) for row in columns]
        index = pad_sequence(lists, batch_first=True)
        counts = torch.tensor([len(row) for row in columns], device=device)
        return index, torch.arange(index.shape[1], device=device) < counts[:, None]

    def _upper(self, states: Tensor) -> Tensor:
        hidden = self._backbone.upper_states(states, self._batch, self._layer)
        index = self._answer[..., None].expand(-1, -1, hidden.shape[2])
        return hidden.gather(1, index).float()
