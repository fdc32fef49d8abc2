"""Ways through a decoder of uniform blocks: prefill and decode, teacher-forced, and in two halves.

What a caller does to hidden states goes through *taps*, functions called with one block's output
that may return a replacement. Taps belong to the call they are passed to; they are gone when it
returns or raises. Without taps no hook exists at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editing_core.backbones.batch import PreparedBatch

Tap = Callable[[Tensor], Tensor | None]
"""Given a block's output `[batch, T, hidden]`, returns its replacement, or None to leave it."""

Prefix = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values of rows that were run once, `[batch, heads, columns, head_size]` a block."""


@dataclass(slots=True, eq=False)
class DecodeState:
    """Keys and values of one running batch. Changed in place by `decode`; valid for one run.

    `attention_mask` int64 `[batch, cached length]`, None when no row is padded; `positions` int64
    `[..., batch, 1]` are those of the tokens to come.
    """

    cache: Any
    attention_mask: Tensor | None
    positions: Tensor


class _Halt(Exception):
    """Leaves the decoder early."""


class DecoderPasses(ABC):
    """Everything that runs the decoder, given where its parts are.

    Calls belong on one thread at a time. Parameters are frozen and never change.
    """

    @property
    @abstractmethod
    def decoder(self) -> nn.Module:
        """The stack of blocks with its final norm, called with `inputs_embeds`."""

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Its blocks; the output of block `i` is the edit site of layer `i`."""

    @property
    @abstractmethod
    def attentions(self) -> Sequence[nn.Module]:
        """Each block's attention: normed states in, what is added to the residual stream out."""

    @property
    @abstractmethod
    def feed_forwards(self) -> Sequence[nn.Module]:
        """Each block's feed-forward module, with the same in and out."""

    @property
    def added(self) -> Sequence[tuple[nn.Module, nn.Module]]:
        """In each block, the two modules whose outputs are added to the residual stream.

        Families that norm what attention and feed-forward give out name those norms.
        """
        return list(zip(self.attentions, self.feed_forwards, strict=True))

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module: ...

    @property
    @abstractmethod
    def output_head(self) -> nn.Module: ...

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Module: ...

    @property
    @abstractmethod
    def projector(self) -> nn.Module:
        """What turns the vision tower's patches into image tokens: one tensor in, one out."""

    @abstractmethod
    def new_cache(self, *, whole: bool = False) -> Any:
        """An empty cache of keys and values.

        A `whole` one forgets nothing, even where a block attends to a window only.
        """

    @property
    def body(self) -> nn.Module:
        """What a pass calls with `inputs_embeds`: the decoder, or the module around it.

        Families whose masks are made outside the decoder name what makes them.
        """
        return self.decoder

    def positions(self, batch: PreparedBatch) -> Tensor:
        """What the decoder is told of where each token stands: int64 `[..., batch, T]`."""
        return batch.position_ids

    def arguments(self, batch: PreparedBatch, columns: slice) -> dict[str, Any]:
        """What else `body` is told about these columns of a whole batch."""
        del batch, columns
        return {}

    @torch.no_grad()
    def embed(self, batch: PreparedBatch) -> Tensor:
        """Input embeddings with picture features in place: `[batch, T, hidden_size]`."""
        embeddings: Tensor = self.token_embedding(batch.input_ids)
        for b, row in enumerate(batch.rows):
            if row.features is not None and row.spans.vision is not None:
                embeddings[b, row.spans.vision_columns(batch.padding[b])] = row.features.patches
        return embeddings

    @torch.no_grad()
    def prefill(
        self,
        batch: PreparedBatch,
        *,
        taps: Mapping[int, Tap] | None = None,
        after: Any | None = None,
    ) -> tuple[Tensor, DecodeState]:
        """Run the whole batch; return logits after the last column, float32 `[batch, vocab]`.

        `after` is a cache of its first columns, which then are not run. It is used up.
        """
        cache = self.new_cache() if after is None else after
        columns = slice(0 if after is None else int(after.get_seq_length()), None)
        mask = batch.attention_mask if batch.is_padded else None
        state = DecodeState(cache, mask, self.positions(batch)[..., -1:] + 1)
        inputs = self.embed(batch)[:, columns]
        hidden = self._run(batch, inputs, cache, taps, columns=columns)
        return self._logits(hidden[:, -1:])[:, 0], state

    @torch.no_grad()
    def decode(
        self, tokens: Tensor, state: DecodeState, *, taps: Mapping[int, Tap] | None = None
    ) -> Tensor:
        """Append one token a row (int64 `[batch]`); return float32 logits `[batch, vocab]`."""
        if state.attention_mask is not None:
            ones = state.attention_mask.new_ones((tokens.shape[0], 1))
            state.attention_mask = torch.cat([state.attention_mask, ones], dim=1)
        embeddings = self.token_embedding(tokens[:, None])
        hidden = self._decode_embeddings(
            embeddings, state.attention_mask, state.positions, state.cache, taps
        )
        state.positions = state.positions + 1
        return self._logits(hidden)[:, 0]

    def forward(
        self,
        batch: PreparedBatch,
        *,
        taps: Mapping[int, Tap] | None = None,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """Teacher-forced pass without a cache: float32 logits `[batch, T, vocab]`.

        `embeddings` `[batch, T, hidden_size]` stand in for those of `embed`. Gradients flow through
        them and through what taps return; callers that want none say so.
        """
        inputs = self.embed(batch) if embeddings is None else embeddings
        return self._logits(self._run(batch, inputs, None, taps))

    @torch.no_grad()
    def read(self, batch: PreparedBatch, columns: int) -> Prefix:
        """Run the first `columns` columns of an unpadded batch once, to be continued many times."""
        cache, first = self.new_cache(whole=True), slice(columns)
        self._run(batch, self.embed(batch)[:, first], cache, None, columns=first)
        return tuple((layer.keys, layer.values) for layer in cache.layers)

    def forward_after(self, prefix: Prefix, batch: PreparedBatch, embeddings: Tensor) -> Tensor:
        """`forward` of the columns that follow `prefix`, given their `embeddings`.

        Float32 logits `[batch, following, vocab]`; they differ from those of the whole row by
        rounding only. Gradients flow through `embeddings`. For causal prefixes.
        """
        cache = self.new_cache()
        for layer, (keys, values) in enumerate(prefix):
            cache.update(keys, values, layer)
        following = slice(batch.length - embeddings.shape[1], None)
        return self._logits(self._run(batch, embeddings, cache, None, columns=following))

    def states(self, batch: PreparedBatch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Outputs of the given blocks, `[batch, T, hidden]` each; blocks above are not run."""
        found: dict[int, Tensor] = {}
        highest = max(layers)

        def keep(layer: int) -> Tap:
            def tap(hidden: Tensor) -> None:
                found[layer] = hidden
                if layer == highest:
                    raise _Halt

            return tap

        try:
            self._run(batch, self.embed(batch), None, {layer: keep(layer) for layer in layers})
        except _Halt:
            return found
        raise AssertionError(f"block {highest} did not run")

    def lower(self, batch: PreparedBatch, layer: int) -> Tensor:
        """Output of block `layer`: where an edit at that layer reads and adds."""
        return self.states(batch, (layer,))[layer]

    def upper(self, states: Tensor, batch: PreparedBatch, layer: int) -> Tensor:
        """Run the blocks above `layer` on its (changed) output: float32 logits `[batch, T, vocab]`.

        `upper(lower(batch, i), batch, i)` equals `forward(batch)` bit for bit.
        """
        return self.logits(self.upper_states(states, batch, layer))

    def last_states(self, batch: PreparedBatch, *, taps: Mapping[int, Tap] | None = None) -> Tensor:
        """What the output head reads in `forward`, after the final norm: `[batch, T, hidden]`."""
        return self._run(batch, self.embed(batch), None, taps)

    def upper_states(self, states: Tensor, batch: PreparedBatch, layer: int) -> Tensor:
        """What the output head reads in `upper`, after the final norm: `[batch, T, hidden]`."""
        with self._standing_in(states, layer):
            return self._run(batch, self.embed(batch), None, None)

    def upper_states_after(
        self, beginning: Tensor, states: Tensor, batch: PreparedBatch, layer: int
    ) -> Tensor:
        """`upper_states` of rows that all begin alike: their beginning is run once for all.

        Args:
            beginning: `[n, hidden]`, what block `layer` gives out for each row's first n tokens,
                padding not counted.
            states: `[batch, T, hidden]`; of each row what comes after its beginning is read.

        Returns:
            As `upper_states`, up to rounding; columns of no row's end are 0. For causal prefixes
            at plain positions (`has_plain_prefix`). Gradients flow to `beginning` and `states`.
        """
        n, rows = len(beginning), len(batch.rows)
        positions = torch.arange(n, device=beginning.device)[None]
        first = self.new_cache(whole=True)
        with self._standing_in(beginning[None], layer):
            self._decode_embeddings(beginning[None], None, positions, first, None)
        above = [(block.keys, block.values) for block in first.layers[layer + 1 :]]
        cache = self.new_cache(whole=True)
        for index in range(layer + 1):
            # Blocks below compute nothing; the cache's length is read off the first.
            cache.update(*(torch.zeros_like(t) for t in above[0]), index)
        for index, pair in enumerate(above, layer + 1):
            cache.update(*(t.expand(rows, -1, -1, -1) for t in pair), index)
        after = torch.arange(n, batch.length, device=states.device)
        starts = torch.tensor(batch.padding, device=states.device)[:, None] + n
        mask = torch.cat([starts.new_ones(rows, n), (after >= starts).to(starts.dtype)], dim=1)
        with self._standing_in(states[:, n:], layer):
            found = self._decode_embeddings(
                states[:, n:], mask, batch.position_ids[:, n:], cache, None
            )
        return torch.nn.functional.pad(found, (0, 0, n, 0))

    def logits(self, last_states: Tensor) -> Tensor:
        """What the output head makes of `[..., hidden]`: float32 `[..., vocab]`."""
        return self._logits(last_states)

    @contextmanager
    def _standing_in(self, states: Tensor, layer: int) -> Iterator[None]:
        """Blocks up to `layer` compute nothing, and that one gives out `states`.

        The decoder's own loop runs the rest, so that whatever it does between blocks, and each
        block's own mask and positions, are as in a whole pass.
        """

        def hand_on(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
            return hidden

        def give_out(_hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
            return states

        skipped = list(self.layers)[: layer + 1]
        for block in skipped:
            vars(block)["forward"] = give_out if block is skipped[-1] else hand_on
        try:
            yield
        finally:
            for block in skipped:
                del vars(block)["forward"]

    def _run(
        self,
        batch: PreparedBatch,
        inputs: Tensor,
        cache: Any,
        taps: Mapping[int, Tap] | None,
        *,
        columns: slice = slice(None),
    ) -> Tensor:
        """`inputs` are the embeddings of these columns of the batch."""
        mask = batch.attention_mask if batch.is_padded else None
        positions = self.positions(batch)[..., columns]
        more = self.arguments(batch, columns)
        return self._decode_embeddings(inputs, mask, positions, cache, taps, **more)

    def _decode_embeddings(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        cache: Any,
        taps: Mapping[int, Tap] | None,
        **more: Any,
    ) -> Tensor:
        with self._tapped(taps):
            output = self.body(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
                **more,
            )
        hidden: Tensor = output.last_hidden_state
        return hidden

    @contextmanager
    def _tapped(self, taps: Mapping[int, Tap] | None) -> Iterator[None]:
        handles = [
            self.layers[layer].register_forward_hook(_as_hook(tap))
            for layer, tap in (taps or {}).items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output_head(hidden)
        return logits.float()


def _as_hook(tap: Tap) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        replacement = tap(_hidden(output))
        if replacement is None:
            return None
        return (replacement, *output[1:]) if isinstance(output, tuple) else replacement

    return hook


def _hidden(output: Any) -> Tensor:
    """A block's states, whether the family returns a tensor or a tuple that starts with one."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
