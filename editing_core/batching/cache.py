"""Keys and values of rows that run together: put side by side, and thinned out again.

transformers' layers can pick rows of one cache. What they lack is putting two caches together:
rows are aligned on their newest column, and what one has fewer columns than another is padding on
its left, masked like that of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from editing_core.backbones.passes import DecodeState

_KEYS_AND_VALUES = (DynamicLayer, DynamicSlidingWindowLayer)


def can_join(cache: Any) -> bool:
    """Whether every layer holds keys and values, and nothing else.

    Convolutions and linear attention sum up all columns in one state, padding included.
    """
    return all(type(layer) in _KEYS_AND_VALUES for layer in cache.layers)


def join(states: Sequence[DecodeState]) -> DecodeState:
    """One state of all their rows, in order. The given states are used up."""
    first, length = states[0], max(map(_length, states))
    masks = [pad(_mask(state), (length - _length(state), 0)) for state in states]
    for layers in zip(*(state.cache.layers for state in states), strict=True):
        keys = [layer.keys for layer in layers]
        width = max(each.shape[-2] for each in keys)
        into = layers[0]
        into.keys = torch.cat([_widened(each, width) for each in keys])
        into.values = torch.cat([_widened(layer.values, width) for layer in layers])
        _set_length(into, length)
    axes = max(state.positions.ndim for state in states)
    positions = [_with_axes(state.positions, states, axes) for state in states]
    mask = torch.cat(masks)
    return DecodeState(
        first.cache, None if bool(mask.all()) else mask, torch.cat(positions, dim=-2)
    )


def select(state: DecodeState, rows: Sequence[int]) -> DecodeState:
    """The state of these rows alone, without columns that are padding in all of them."""
    index = torch.tensor(rows, device=state.positions.device)
    mask, length = _mask(state)[index], _length(state)
    unused = int((mask.cumsum(-1) == 0).sum(-1).min())
    mask = mask[:, unused:]
    for layer in state.cache.layers:
        layer.batch_select_indices(index)
        # A layer with a window may have forgotten more columns than are unused.
        extra = max(0, layer.keys.shape[-2] - (length - unused))
        layer.keys, layer.values = layer.keys[..., extra:, :], layer.values[..., extra:, :]
        _set_length(layer, length - unused)
    return DecodeState(
        state.cache, None if bool(mask.all()) else mask, state.positions[..., index, :]
    )


def _length(state: DecodeState) -> int:
    """Columns so far, padding counted."""
    return int(state.cache.get_seq_length())


def _mask(state: DecodeState) -> Tensor:
    if state.attention_mask is not None:
        return state.attention_mask
    rows = state.positions.shape[-2]
    return state.positions.new_ones((rows, _length(state)))


def _widened(tensor: Tensor, width: int) -> Tensor:
    """`[rows, heads, columns, size]` with empty columns on the left."""
    return pad(tensor, (0, 0, width - tensor.shape[-2], 0))


def _set_length(layer: Any, length: int) -> None:
    """Only layers with a window count their columns; the others' are all there."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = length


def _with_axes(positions: Tensor, states: Sequence[DecodeState], axes: int) -> Tensor:
    """Rows of text alone stand at the same place on each of the axes that pictures have."""
    if positions.ndim == axes:
        return positions
    widest = next(state.positions for state in states if state.positions.ndim == axes)
    return positions.expand(*widest.shape[:-2], *positions.shape)
