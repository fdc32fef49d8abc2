"""What rows begin with, run once for all that begin alike: keys and values, kept by content.

    template, picture | question, template | answer
    ----- kept -----    -- run for each --

Questions about one picture share all up to its last token. A beginning is known by its tokens and
by what its pictures show, never by a name, and it holds what the *base* model makes of them: an
expert that acts from the last prompt token on changes nothing before it. A row whose experts act
earlier, on the picture or on every token, is run whole, and leaves nothing here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PreparedRow
from editing_core.backbones.passes import DecodeState
from editing_core.recent import Recent


@dataclass(slots=True, eq=False)
class Beginning:
    """The first `length` tokens of some rows: keys and values `[heads, length, size]` a block.

    `picture` float32 `[patches, hidden]` are its picture's states at the router's layer, from when
    they were first wanted.
    """

    length: int
    blocks: tuple[tuple[Tensor, Tensor], ...]
    picture: Tensor | None = None

    @property
    def nbytes(self) -> int:
        seen = 0 if self.picture is None else self.picture.nbytes
        return seen + sum(keys.nbytes + values.nbytes for keys, values in self.blocks)


class Beginnings:
    """At most `limit` bytes of them, on the backbone's device; with 0, none. One thread's."""

    def __init__(self, limit: int) -> None:
        self._kept: Recent[Hashable, Beginning] = Recent(limit)

    @property
    def nbytes(self) -> int:
        """Of all that are kept."""
        return self._kept.size

    def of(self, row: PreparedRow) -> Beginning | None:
        """The row's, if it is kept."""
        name = name_of(row)
        return None if name is None else self._kept.get(name)

    def keep(
        self, batch: PreparedBatch, b: int, state: DecodeState, picture: Tensor | None
    ) -> None:
        """Copy that of row b out of the state that prefilling the whole batch left.

        Nothing is kept where the row has none, or a block with a window has forgotten some of it.
        """
        name = name_of(batch.rows[b])
        layers = state.cache.layers
        if name is None or any(layer.keys.shape[-2] < batch.length for layer in layers):
            return
        length = _length(batch.rows[b])
        columns = slice(batch.padding[b], batch.padding[b] + length)
        made = Beginning(
            length,
            tuple(
                (layer.keys[b, :, columns].clone(), layer.values[b, :, columns].clone())
                for layer in layers
            ),
            None if picture is None else picture.clone(),
        )
        self._kept.put(name, made, made.nbytes)

    def see(self, row: PreparedRow, beginning: Beginning, picture: Tensor) -> None:
        """Keep with it what its picture's states are."""
        name = name_of(row)
        if name is not None and beginning.picture is None:
            beginning.picture = picture.clone()
            self._kept.put(name, beginning, beginning.nbytes)

    def clear(self) -> None:
        """Give all of the memory back."""
        self._kept.clear()


def name_of(row: PreparedRow) -> Hashable | None:
    """What tells its beginning from others; None where it has none that could be shared."""
    length = _length(row)
    if not length or row.features is None or not row.features.content:
        return None
    return row.ids[:length], row.features.content


def columns_before(batch: PreparedBatch, found: Sequence[Beginning]) -> int:
    """How many columns of the batch need not be run, if each row's beginning is `found`.

    Rows are aligned at their ends, so the one with most to run decides for all.
    """
    rows = zip(batch.rows, found, strict=True)
    return batch.length - max(len(row.ids) - each.length for row, each in rows)


def cache_of(
    backbone: Backbone, batch: PreparedBatch, found: Sequence[Beginning], columns: int
) -> Any:
    """A cache of the batch's first `columns` columns, what is padding in them left empty."""
    cache = backbone.new_cache()
    for layer in range(len(found[0].blocks)):
        pair = []
        for part in range(2):
            some = found[0].blocks[layer][part]
            whole = some.new_zeros(len(found), some.shape[0], columns, some.shape[2])
            for b, (each, pad) in enumerate(zip(found, batch.padding, strict=True)):
                if pad < columns:
                    whole[b, :, pad:] = each.blocks[layer][part][:, : columns - pad]
            pair.append(whole)
        cache.update(*pair, layer)
    return cache


def _length(row: PreparedRow) -> int:
    """Up to the end of its pictures, and of the marks around them."""
    if row.spans.vision is None:
        return 0
    end = row.spans.vision[1] if row.shown is None else row.shown[1]
    return end if end <= row.spans.last_prompt else 0
