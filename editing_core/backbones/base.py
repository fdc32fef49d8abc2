"""What every model family gives: tokens, picture features, prefill and decode, and edit sites.

A backbone never changes: its parameters are frozen, and what a caller does to hidden states goes
through *taps*, functions called with one decoder block's output that may return a replacement.
Taps are owned by the call they are passed to; they are gone when it returns or raises. Without
taps no hook exists at all.

Calls that run the model belong on one thread. `prepare`, `encode_target` and `text_of` may be
called from any thread; `image_features` too, and its results are shared. Errors: `RequestError`
for input the model cannot take, `CheckpointError` at load.

A family's file only names things: see `llava.py`.
"""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from editing_core.backbones.batch import (
    ImageFeatures,
    PreparedBatch,
    PreparedRow,
    PromptRow,
    collate,
)
from editing_core.backbones.chat import ChatTokenizer
from editing_core.config import Placement
from editing_core.errors import CheckpointCorrupt, ContextTooLong
from editing_core.types import ImageArray, TokenSpans

Tap = Callable[[Tensor], Tensor | None]
"""Given a block's output `[batch, T, hidden]`, returns its replacement, or None to leave it."""

_FEATURE_CACHE_ROWS = 128


@dataclass(slots=True, eq=False)
class DecodeState:
    """Keys and values of one running batch. Changed in place by `decode`; valid for one run.

    `attention_mask` int64 `[batch, cached length]`, None when no row is padded; `positions` int64
    `[batch, 1]` are those of the tokens to come.
    """

    cache: Any
    attention_mask: Tensor | None
    positions: Tensor


class _Halt(Exception):  # noqa: N818 - control flow, never seen outside this file
    """Leaves the decoder early, carrying what it was entered for."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


class Backbone(ABC):
    """One loaded vision-language model with a decoder of uniform blocks."""

    architecture: str
    prefix_is_causal: bool = True
    image_key_dim: int
    image_key_model: str
    num_image_tokens: int

    def __init__(
        self, *, fingerprint: str, placement: Placement, chat: ChatTokenizer, pad_token_id: int
    ) -> None:
        self.fingerprint = fingerprint
        self.placement = placement
        self.chat = chat
        self.pad_token_id = pad_token_id
        self._features: OrderedDict[bytes, ImageFeatures] = OrderedDict()
        self._features_lock = threading.Lock()

    # What a family names.

    @classmethod
    @abstractmethod
    def load(cls, folder: Any, *, clip: Any, placement: Placement, fingerprint: str) -> Backbone:
        """Read a local folder written by `save_pretrained`; `clip` is a CLIPModel's, or None."""

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
    def final_norm(self) -> nn.Module: ...

    @property
    @abstractmethod
    def output_head(self) -> nn.Module: ...

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Module: ...

    @property
    @abstractmethod
    def hidden_size(self) -> int: ...

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Longest sequence, prompt and answer together."""

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty cache of keys and values."""

    @abstractmethod
    def compute_features(self, image: ImageArray) -> ImageFeatures:
        """Run the vision tower on one picture, letterboxed."""

    # What follows from it.

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        return self.chat.stop_token_ids

    @property
    def image_token_id(self) -> int:
        return self.chat.image_token_id

    def encode_target(self, target: str) -> list[int]:
        """Tokens of an answer, stop token included. Raises `TargetNotEncodable`."""
        return list(self.chat.encode_target(target))

    def text_of(self, ids: Sequence[int]) -> str:
        """Generated tokens as trimmed text without special tokens."""
        return self.chat.decode(ids)

    @torch.no_grad()
    def embed_tokens(self, ids: Sequence[int]) -> Tensor:
        """Input embeddings of `ids`: `[n, hidden_size]`."""
        return self.token_embedding(torch.tensor(ids, device=self.device))  # type: ignore[no-any-return]

    def image_features(self, images: Sequence[ImageArray]) -> list[ImageFeatures]:
        """Features and keys, each picture on its own: neighbours in a batch change no bit."""
        return [self._cached_features(image) for image in images]

    def lay_out(self, prompt: str, *, has_image: bool, target_ids: Sequence[int] = ()) -> PreparedRow:
        """Tokens and spans of one row, without its picture's features. Runs no model.

        Raises `ContextTooLong` when the row, and one token of answer if it has none, do not fit.
        """
        encoded = self.chat.encode_prompt(prompt, with_image=has_image)
        ids, (start, stop) = list(encoded.ids), encoded.prompt
        vision = None
        if encoded.image_at is not None:
            at, extra = encoded.image_at, self.num_image_tokens - 1
            ids[at : at + 1] = [self.image_token_id] * self.num_image_tokens
            vision = (at, at + self.num_image_tokens)
            if start > at:
                start, stop = start + extra, stop + extra
        needed = len(ids) + max(1, len(target_ids))
        if needed > self.max_positions:
            raise ContextTooLong(
                f"the prompt needs {needed} tokens with its answer; "
                f"the model reads {self.max_positions}"
            )
        spans = TokenSpans(
            vision=vision,
            prompt=(start, stop),
            last_prompt=len(ids) - 1,
            target=(len(ids), len(ids) + len(target_ids)),
        )
        return PreparedRow((*ids, *target_ids), spans, None)

    def prepare(self, rows: Sequence[PromptRow]) -> PreparedBatch:
        """Tokenise, compute or fetch picture features, and pad on the left.

        Raises `ContextTooLong` and `TargetNotEncodable`.
        """
        prepared = []
        for row in rows:
            if row.target is not None and row.target_ids:
                raise ValueError("a row has either a target or target_ids")
            answer = row.target_ids
            if row.target is not None:
                answer = self.chat.encode_target(row.target)
            laid_out = self.lay_out(
                row.prompt, has_image=row.image is not None, target_ids=answer
            )
            prepared.append(PreparedRow(laid_out.ids, laid_out.spans, self._features_of(row)))
        return collate(prepared, pad_token_id=self.pad_token_id, device=self.device)

    @torch.no_grad()
    def embed(self, batch: PreparedBatch) -> Tensor:
        """Input embeddings with picture features in place: `[batch, T, hidden_size]`."""
        embeddings: Tensor = self.token_embedding(batch.input_ids)
        for b, row in enumerate(batch.rows):
            if row.features is not None and row.spans.vision is not None:
                start, stop = (edge + batch.padding[b] for edge in row.spans.vision)
                embeddings[b, start:stop] = row.features.patches
        return embeddings

    @torch.no_grad()
    def prefill(
        self, batch: PreparedBatch, *, taps: Mapping[int, Tap] | None = None
    ) -> tuple[Tensor, DecodeState]:
        """Run the whole batch; return logits after the last column, float32 `[batch, vocab]`."""
        mask = batch.attention_mask if batch.is_padded else None
        state = DecodeState(self.new_cache(), mask, batch.position_ids[:, -1:] + 1)
        hidden = self._decode_embeddings(
            self.embed(batch), mask, batch.position_ids, state.cache, taps
        )
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

    def forward(self, batch: PreparedBatch, *, taps: Mapping[int, Tap] | None = None) -> Tensor:
        """Teacher-forced pass without a cache: float32 logits `[batch, T, vocab]`.

        Gradients flow through what taps return; callers that want none say so.
        """
        mask = batch.attention_mask if batch.is_padded else None
        return self._logits(
            self._decode_embeddings(self.embed(batch), mask, batch.position_ids, None, taps)
        )

    def states(self, batch: PreparedBatch, layers: Sequence[int]) -> dict[int, Tensor]:
        """Outputs of the given blocks, `[batch, T, hidden]` each; blocks above are not run."""
        found: dict[int, Tensor] = {}
        highest = max(layers)

        def keep(layer: int) -> Tap:
            def tap(hidden: Tensor) -> None:
                found[layer] = hidden
                if layer == highest:
                    raise _Halt(None)

            return tap

        mask = batch.attention_mask if batch.is_padded else None
        try:
            self._decode_embeddings(
                self.embed(batch),
                mask,
                batch.position_ids,
                None,
                {layer: keep(layer) for layer in layers},
            )
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
        hidden = states
        arguments = self._block_arguments(batch)
        for block in self.layers[layer + 1 :]:
            hidden = _hidden(block(hidden, **arguments))
        return self._logits(self.final_norm(hidden))

    def _block_arguments(self, batch: PreparedBatch) -> dict[str, Any]:
        """What the decoder passes to each block beside the states; the same for all of them."""

        def capture(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            raise _Halt(kwargs)

        handle = self.layers[0].register_forward_pre_hook(capture, with_kwargs=True)
        mask = batch.attention_mask if batch.is_padded else None
        try:
            self._decode_embeddings(self.embed(batch), mask, batch.position_ids, None, None)
        except _Halt as halt:
            arguments: dict[str, Any] = halt.value
            return arguments
        finally:
            handle.remove()
        raise AssertionError("block 0 did not run")

    def _decode_embeddings(
        self,
        embeddings: Tensor,
        mask: Tensor | None,
        positions: Tensor,
        cache: Any,
        taps: Mapping[int, Tap] | None,
    ) -> Tensor:
        with self._tapped(taps):
            output = self.decoder(
                inputs_embeds=embeddings,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=cache is not None,
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

    def _features_of(self, row: PromptRow) -> ImageFeatures | None:
        if row.image is None or isinstance(row.image, ImageFeatures):
            return row.image
        return self._cached_features(row.image)

    def _cached_features(self, image: ImageArray) -> ImageFeatures:
        digest = hashlib.sha256(str(image.shape).encode())
        digest.update(image.tobytes())
        key = digest.digest()
        with self._features_lock:
            if key in self._features:
                self._features.move_to_end(key)
                return self._features[key]
        features = self.compute_features(image)
        if features.patches.shape != (self.num_image_tokens, self.hidden_size):
            raise CheckpointCorrupt(
                f"the vision tower gave {tuple(features.patches.shape)} features, its configuration "
                f"promises {(self.num_image_tokens, self.hidden_size)}"
            )
        with self._features_lock:
            self._features[key] = features
            while len(self._features) > _FEATURE_CACHE_ROWS:
                self._features.popitem(last=False)
        return features


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
