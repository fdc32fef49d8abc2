"""What every model family gives: tokens, picture features, and ways through its decoder.

A backbone never changes: its parameters are frozen. Calls that run the decoder (`passes.py`) belong
on one thread. `prepare`, `encode_target` and `text_of` may be called from any thread;
`image_features` too, and its results are shared. Errors: `RequestError` for input the model cannot
take, `CheckpointError` at load.

A family's file only names things: see `llava.py`.
"""

from __future__ import annotations

import hashlib
import threading
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from editing_core.backbones.batch import (
    ImageFeatures,
    PreparedBatch,
    PreparedRow,
    PromptRow,
    collate,
)
from editing_core.backbones.chat import ChatTokenizer
from editing_core.backbones.passes import DecoderPasses
from editing_core.config import Placement
from editing_core.errors import ContextTooLong
from editing_core.types import ImageArray, TokenSpans

_FEATURE_CACHE_BYTES = 64 * 2**20


class Backbone(DecoderPasses):
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
    def load(
        cls, folder: Path, *, clip: Path | None, placement: Placement, fingerprint: str
    ) -> Backbone:
        """Read a local folder written by `save_pretrained`; `clip` is a CLIPModel's, or None."""

    @property
    @abstractmethod
    def hidden_size(self) -> int: ...

    @property
    @abstractmethod
    def max_positions(self) -> int:
        """Longest sequence, prompt and answer together."""

    @property
    @abstractmethod
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of patches, whose tokens end the picture's, in reading order.

        They divide the letterboxed picture; what comes before them (a class token) has no place.
        """

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

    def lay_out(
        self, prompt: str, *, has_image: bool, target_ids: Sequence[int] = ()
    ) -> PreparedRow:
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
            laid_out = self.lay_out(row.prompt, has_image=row.image is not None, target_ids=answer)
            prepared.append(PreparedRow(laid_out.ids, laid_out.spans, self._features_of(row)))
        return collate(prepared, pad_token_id=self.pad_token_id, device=self.device)

    @torch.no_grad()
    def word_states(self, rows: Sequence[PreparedRow], layer: int) -> list[Tensor]:
        """Each row's own words as block `layer` leaves them when there is no picture.

        Returns float32 `[words, hidden]` a row. What follows the words is not run, and rows of
        equal tokens are run once.
        """
        texts = [_without_picture(row) for row in rows]
        distinct = {text.ids: text for text in texts}
        batch = collate(list(distinct.values()), pad_token_id=self.pad_token_id, device=self.device)
        hidden = self.lower(batch, layer)
        found: dict[tuple[int, ...], Tensor] = {}
        for b, text in enumerate(batch.rows):
            start, stop = (edge + batch.padding[b] for edge in text.spans.prompt)
            found[text.ids] = hidden[b, start:stop].float()
        return [found[text.ids] for text in texts]

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
        with self._features_lock:
            self._features[key] = features
            while len(self._features) > max(1, _FEATURE_CACHE_BYTES // features.patches.nbytes):
                self._features.popitem(last=False)
        return features


def _without_picture(row: PreparedRow) -> PreparedRow:
    """The row up to its last word, its picture's tokens left out."""
    start, stop = row.spans.prompt
    ids = row.ids[:stop]
    if row.spans.vision is not None:
        first, end = row.spans.vision
        ids = (*ids[:first], *ids[end:])
        if start >= end:
            start, stop = start - (end - first), stop - (end - first)
    last = len(ids) - 1
    spans = TokenSpans(
        vision=None, prompt=(start, stop), last_prompt=last, target=(last + 1, last + 1)
    )
    return PreparedRow(ids, spans, None)
