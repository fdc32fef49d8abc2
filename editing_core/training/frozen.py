"""The frozen base model as a trainer needs it: prefixes computed once, answers run on top of them.

A question's rows never change while an editor trains, and with a causal prefix neither do their
keys and values. So they are computed once and kept, and a step runs the answer rows only, through
the model's own forward with its own cache. A hook adds the residual at the edit layer: the forward
that is trained is the forward that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

Residual = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of one sequence, computed once by the base model.

    `states` `[rows, hidden]` at the edit layer; `cache` `[blocks, 2, heads, rows, head_size]`.
    `start` is the position of the first row. Kept in the storage type of the `FrozenDecoder`.
    """

    states: Tensor
    cache: Tensor
    start: int

    @property
    def end(self) -> int:
        """The position after the last row."""
        return self.start + len(self.states)


@dataclass(frozen=True)
class AnswerRows:
    """Answer rows of several sequences after their run, padded on the right.

    `states` float32 `[rows, n, hidden]`: base states at the edit layer, before any residual.
    `hidden` float32 `[rows, n, hidden]`: the last ones, after the final norm, with the residual's
    effect; what the output head reads. Padded places hold values of no meaning.
    """

    states: Tensor
    hidden: Tensor


class FrozenDecoder:
    """The decoder of a loaded model, without gradient for its own weights.

    Args:
        decoder: the transformers decoder stack (`layers`, `norm`, `embed_tokens`).
        head: hidden states to logits.
        layer: the edit layer, counted from 0; states are the output of this block.
        storage: the type in which stretches are kept. float16 halves the memory and rounds.
    """

    def __init__(
        self,
        decoder: Any,
        head: nn.Module,
        *,
        layer: int,
        storage: torch.dtype = torch.float16,
    ) -> None:
        self.decoder = decoder
        self.head = head
        self.layer = layer
        self.storage = storage
        self.embeddings: Tensor = decoder.embed_tokens.weight.detach()

    def embed(self, ids: Sequence[int] | Tensor) -> Tensor:
        """Input embeddings, `[tokens, hidden]`."""
        return self.embeddings[torch.as_tensor(ids)]

    @torch.no_grad()
    def extend(
        self,
        rows: Sequence[Tensor],
        *,
        before: Sequence[Stretch] | None = None,
        all_blocks: bool = True,
    ) -> list[Stretch]:
        """Run rows of embeddings `[tokens, hidden]`, each after its own stretch if given.

        Unless `all_blocks`, only those up to the edit layer run, and the caches hold only them.
        """
        lengths = [len(row) for row in rows]
        embeds = pad_sequence(list(rows), batch_first=True)
        past = None if before is None else [[stretch] for stretch in before]
        seen: list[Tensor] = []
        with self._hooked(None, seen), self._only_lower(not all_blocks):
            _, cache, past_length = self._run(embeds, lengths, past)
        ran = cache.layers if all_blocks else cache.layers[: self.layer + 1]
        blocks = [torch.stack((entry.keys, entry.values)) for entry in ran]
        result = []
        for i, n in enumerate(lengths):
            kept = torch.stack([block[:, i, :, past_length : past_length + n] for block in blocks])
            start = 0 if before is None else before[i].end
            states = seen[0][i, :n].to(self.storage)
            result.append(Stretch(states, kept.to(self.storage), start))
        return result

    def answer(
        self,
        prefixes: Sequence[Sequence[Stretch]],
        ids: Sequence[Tensor],
        residual: Residual | None = None,
    ) -> AnswerRows:
        """Run answer rows on top of their prefixes, with a residual at the edit layer.

        Args:
            prefixes: for each row, the stretches before its last prompt token.
            ids: for each row int64 `[n]`: the last prompt token, then the target without its last
                token, so that row `i` predicts target token `i`.
            residual: `(states [rows, n, hidden], steps [rows, n]) -> [rows, n, hidden]`, or None
                for the base model. Gradients flow through it.
        """
        lengths = [len(row) for row in ids]
        embeds = self.embed(pad_sequence(list(ids), batch_first=True))
        seen: list[Tensor] = []
        with self._hooked(residual, seen):
            hidden, _, _ = self._run(embeds, lengths, prefixes)
        return AnswerRows(states=seen[0], hidden=hidden)

    def whole(self, states: Sequence[Tensor], residual: Tensor | None = None) -> Tensor:
        """Last hidden states of whole rows from those at the edit layer, through the rest.

        Args:
            states: for each row float32 `[tokens, hidden]`.
            residual: `[rows, tokens, hidden]`, padded on the right as the rows will be.

        Returns:
            `[rows, tokens, hidden]`, after the final norm.
        """
        embeds = pad_sequence([row.float() for row in states], batch_first=True)
        if residual is not None:
            embeds = embeds + residual
        mask = _exists([len(row) for row in states], embeds.shape[1])
        layers = self.decoder.layers
        self.decoder.layers = layers[self.layer + 1 :]
        try:
            out = self.decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
        finally:
            self.decoder.layers = layers
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _run(
        self,
        embeds: Tensor,
        lengths: Sequence[int],
        prefixes: Sequence[Sequence[Stretch]] | None,
    ) -> tuple[Tensor, Any, int]:
        cache = DynamicCache()
        rows, width = embeds.shape[:2]
        starts = torch.zeros(rows, dtype=torch.int64)
        mask = _exists(lengths, width)
        past_length = 0
        if prefixes is not None:
            past, past_mask = _stack_caches(prefixes)
            past_length = past_mask.shape[1]
            for number in range(past.shape[0]):
                cache.update(past[number, 0], past[number, 1], number)
            mask = torch.cat([past_mask, mask], dim=1)
            starts = torch.tensor([stretches[-1].end for stretches in prefixes])
        out = self.decoder(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=starts[:, None] + torch.arange(width),
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state, cache, past_length

    @contextmanager
    def _hooked(self, residual: Residual | None, seen: list[Tensor]) -> Iterator[None]:
        """Show the edit layer's output to `seen`, and add the residual to it."""

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            seen.append(states)
            if residual is None:
                return None
            steps = torch.arange(1, states.shape[1] + 1).expand(states.shape[:2])
            edited = states + residual(states, steps)
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        handle = self.decoder.layers[self.layer].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _only_lower(self, wanted: bool) -> Iterator[None]:
        layers = self.decoder.layers
        if wanted:
            self.decoder.layers = layers[: self.layer + 1]
        try:
            yield
        finally:
            self.decoder.layers = layers


def _exists(lengths: Sequence[int], width: int) -> Tensor:
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def _stack_caches(prefixes: Sequence[Sequence[Stretch]]) -> tuple[Tensor, Tensor]:
    """Caches of several rows side by side: `[layers, 2, rows, heads, tokens, head_size]`, mask.

    Padding lies wherever a row's stretches end; the mask and explicit positions make it harmless.
    """
    joined = [torch.cat([s.cache for s in stretches], dim=-2) for stretches in prefixes]
    lengths = [cache.shape[-2] for cache in joined]
    width = max(lengths)
    shape = joined[0].shape
    stacked = torch.zeros((*shape[:2], len(joined), shape[2], width, shape[4]))
    for i, cache in enumerate(joined):
        stacked[:, :, i, :, : lengths[i]] = cache
    return stacked, _exists(lengths, width)
