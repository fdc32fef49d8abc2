"""What every model family gives: tokens, picture features, and ways through its decoder.

A backbone never changes: its parameters are frozen. Calls that run the decoder (`passes.py`) belong
on one thread. `prepare`, `encode_target` and `text_of` may be called from any thread;
`image_features` too, and its results are shared. Errors: `RequestError` for input the model cannot
take, `CheckpointError` at load.

A family's file only names things: see `stock.py`, which does what is the same for all of them.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from editing_core.backbones.batch import (
    ImageFeatures,
    Picture,
    PreparedBatch,
    PreparedRow,
    PromptRow,
    collate,
)
from editing_core.backbones.chat import ChatTokenizer
from editing_core.backbones.passes import DecoderPasses
from editing_core.config import Placement
from editing_core.errors import ContextTooLong, RequestError
from editing_core.eyes.eyes import Eyes
from editing_core.recent import Recent
from editing_core.types import ImageArray, TokenSpans, Turn

_FEATURE_CACHE_BYTES = 64 * 2**20
_WORDS_CACHE_BYTES = 16 * 2**20


class Backbone(DecoderPasses):
    """One loaded vision-language model with a decoder of uniform blocks."""

    architecture: str
    prefix_is_causal: bool = True
    continues_anywhere: bool = True
    """Whether a row whose first tokens were run may be run on from any of them.

    Not where tokens see later ones: a picture's, or all of a prompt.
    """
    has_plain_prefix: bool = False
    """Whether `training.frozen` may keep prefixes as keys and values that any answer may follow.

    They are causal, at positions 0, 1, 2; a picture is `num_image_tokens` tokens in one run, at the
    same place in every row; inputs are the embedding table's own rows.
    """
    image_key_dim: int
    image_key_model: str
    makes_own_keys: bool = True
    """Whether the vision tower's pooled state tells pictures apart where no CLIPModel is given."""
    eyes: Eyes | None = None
    eyes_fingerprint: str = ""
    """Of the eyes that make keys beside the checkpoint's own; empty where there are none.

    Apart from the backbone's own fingerprint: other eyes make other keys, and no other experts.
    """
    takes_several_images: bool = True
    num_image_tokens: int
    """Tokens of the usual picture."""

    def __init__(
        self, *, fingerprint: str, placement: Placement, chat: ChatTokenizer, pad_token_id: int
    ) -> None:
        self.fingerprint = fingerprint
        self.placement = placement
        self.chat = chat
        self.pad_token_id = pad_token_id
        self._features: Recent[bytes, ImageFeatures] = Recent(_FEATURE_CACHE_BYTES)
        self._words: Recent[tuple[int, tuple[int, ...]], Tensor] = Recent(_WORDS_CACHE_BYTES)
        """Word states by layer and tokens."""

    # What a family names.

    @classmethod
    @abstractmethod
    def load(
        cls,
        folder: Path,
        *,
        clip: Path | None,
        placement: Placement,
        fingerprint: str,
        trust_remote_code: bool = False,
    ) -> Backbone:
        """Read a local folder written by `save_pretrained`; `clip` is a CLIPModel's, or None.

        `trust_remote_code` is about the processor only: a model's class is transformers' own.
        """

    @classmethod
    @abstractmethod
    def outline(cls, folder: Path, *, trust_remote_code: bool = False) -> Self:
        """The model of a folder without its weights: it lays out rows, and can run nothing."""

    @abstractmethod
    def picture_of(self, image: ImageArray) -> Picture:
        """How one picture is written into a prompt. Runs no model."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Of the whole model, tower included."""

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
        """Rows and columns of the usual picture's patches, in reading order.

        They divide the picture that the model is shown. Tokens that have no place in it (queries)
        stand in one row.
        """

    @abstractmethod
    def compute_features(self, image: ImageArray) -> ImageFeatures:
        """Run the vision tower on one picture, letterboxed where the family takes squares only."""

    @property
    @abstractmethod
    def usual_picture(self) -> Picture:
        """How a picture is written whose features do not say it.

        Where the number of tokens varies with the picture: that of one of middling size.
        """

    def for_prompt(self, features: ImageFeatures, prompt: str) -> ImageFeatures:
        """The features as this prompt's row shows them, where the model looks with it in mind."""
        del prompt
        return features

    @abstractmethod
    def see_with(self, eyes: Eyes) -> None:
        """Have `eyes` make the keys of pictures that the CLIP does not know, before any is made.

        Raises `CheckpointCorrupt` where they were made beside keys of another length.
        """

    @abstractmethod
    def glance(self, image: ImageArray) -> Tensor:
        """What the eyes' gate reads of a picture: `glance_of` the tower's states, on the CPU."""

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
        self,
        prompt: str,
        *,
        has_image: bool,
        target_ids: Sequence[int] = (),
        pictures: Sequence[Picture] = (),
        turns: Sequence[Turn] = (),
    ) -> PreparedRow:
        """Tokens and spans of one row, without its picture's features. Runs no model.

        `pictures` are what it shows, by default the usual one; those of `turns`, where these are
        what is read. Raises `ContextTooLong` when the row, and one token of answer if it has none,
        do not fit, and `TurnsNotWritable`.
        """
        if has_image and not pictures:
            pictures = (self.usual_picture,)
        shown_as = [picture.text for picture in pictures]
        if turns:
            encoded = self.chat.encode_turns(turns, shown_as)
        else:
            encoded = self.chat.encode_prompt(prompt, with_image=has_image, pictures=shown_as)
        ids, (start, stop), shown = list(encoded.ids), encoded.prompt, encoded.shown
        tiles: list[tuple[int, int]] = []
        for at, run in zip(encoded.images, (n for p in pictures for n in p.runs), strict=True):
            extra = sum(end - begin - 1 for begin, end in tiles)
            ids[at + extra : at + extra + 1] = [self.image_token_id] * run
            tiles.append((at + extra, at + extra + run))
            if encoded.prompt[0] > at:
                start, stop = start + run - 1, stop + run - 1
        if tiles and shown is not None:
            shown = (shown[0], shown[1] + sum(end - begin - 1 for begin, end in tiles))
        self._check_length(len(ids) + max(1, len(target_ids)))
        spans = TokenSpans(
            vision=(tiles[0][0], tiles[-1][1]) if tiles else None,
            prompt=(start, stop),
            last_prompt=len(ids) - 1,
            target=(len(ids), len(ids) + len(target_ids)),
            apart=tuple(i for (_, end), (begin, _) in pairwise(tiles) for i in range(end, begin)),
        )
        return PreparedRow((*ids, *target_ids), spans, None, shown, prompt)

    def prepare(self, rows: Sequence[PromptRow]) -> PreparedBatch:
        """Tokenise, compute or fetch picture features, and pad on the left.

        Raises `ContextTooLong`, `TargetNotEncodable` and `TurnsNotWritable`, and `RequestError` for
        several pictures where the family takes one.
        """
        return self.collate([self.prepare_row(row) for row in rows])

    def collate(self, rows: Sequence[PreparedRow]) -> PreparedBatch:
        """Pad prepared rows on the left, on this device."""
        return collate(rows, pad_token_id=self.pad_token_id, device=self.device)

    def prepare_row(self, row: PromptRow) -> PreparedRow:
        """One row of what `prepare` makes, and what it raises."""
        if row.target is not None and row.target_ids:
            raise ValueError("a row has either a target or target_ids")
        if row.ids:
            return self._text(row.ids)
        if row.turns:
            return self._conversation(row)
        answer = row.target_ids
        if row.target is not None:
            answer = self.chat.encode_target(row.target)
        features = self._features_of(row)
        laid_out = self.lay_out(
            row.prompt,
            has_image=features is not None,
            target_ids=answer,
            pictures=() if features is None else features.pictures,
        )
        if features is not None:
            features = self.for_prompt(features, row.prompt)
        return replace(laid_out, features=features)

    @torch.no_grad()
    def word_states(self, rows: Sequence[PreparedRow], layer: int) -> list[Tensor]:
        """Each row's own words as block `layer` leaves them when there is no picture.

        Returns float32 `[words, hidden]` a row. What follows the words is not run, nor what was
        said before them. Rows of equal tokens are run once, and not again while they are recent.
        """
        texts = [_without_picture(row.alone or row) for row in rows]
        found = {text.ids: self._words.get((layer, text.ids)) for text in texts}
        new = {text.ids: text for text in texts if found[text.ids] is None}
        if new:
            batch = self.collate(list(new.values()))
            hidden = self.lower(batch, layer)
            for b, text in enumerate(batch.rows):
                start, stop = (edge + batch.padding[b] for edge in text.spans.prompt)
                # A copy, so that what is kept keeps no other row.
                own = hidden[b, start:stop].float().clone()
                found[text.ids] = own
                self._words.put((layer, text.ids), own, own.nbytes)
        return [words for text in texts if (words := found[text.ids]) is not None]

    def forget_words(self) -> None:
        """Run every row's words again, as if they were new."""
        self._words.clear()

    @torch.no_grad()
    def picture_states(self, rows: Sequence[PreparedRow], layer: int) -> list[Tensor]:
        """Each row's picture as block `layer` leaves it: float32 `[patches, hidden]` a row.

        Rows are run one by one, as if nobody else asked.
        """
        found = []
        for row in rows:
            batch = collate([row], pad_token_id=self.pad_token_id, device=self.device)
            found.append(self.lower(batch, layer)[0, row.spans.vision_rows].float())
        return found

    def _text(self, ids: tuple[int, ...]) -> PreparedRow:
        self._check_length(len(ids) + 1)
        end = len(ids)
        return PreparedRow(ids, TokenSpans(None, (0, end), end - 1, (end, end)), None)

    def _conversation(self, row: PromptRow) -> PreparedRow:
        """The row of `turns`, and beside it that of its last question and latest picture."""
        images = [image for turn in row.turns for image in turn.images]
        if len(images) > 1 and not self.takes_several_images:
            raise RequestError(f"{self.architecture} is shown one picture at a time")
        (alone,) = self.prepare([PromptRow(row.prompt, row.image)]).rows
        if not images:
            laid_out = self.lay_out(row.prompt, has_image=False, turns=row.turns)
            return replace(laid_out, alone=alone)
        found = self._side_by_side(self.image_features(images))
        laid_out = self.lay_out(
            row.prompt, has_image=True, pictures=found.pictures, turns=row.turns
        )
        assert alone.features is not None
        features = replace(
            self.for_prompt(found, row.prompt),
            key=alone.features.key,
            sketch=alone.features.sketch,
        )
        shown = np.arange(len(laid_out.ids))[laid_out.spans.vision_rows]
        latest = tuple(shown[-found.pictures[-1].num_tokens :].tolist())
        return replace(laid_out, features=features, alone=alone, latest=latest)

    def _check_length(self, needed: int) -> None:
        if needed > self.max_positions:
            raise ContextTooLong(
                f"the prompt needs {needed} tokens with its answer; "
                f"the model reads {self.max_positions}"
            )

    def _features_of(self, row: PromptRow) -> ImageFeatures | None:
        if row.image is None:
            return None
        first = row.image
        if not isinstance(first, ImageFeatures):
            first = self._cached_features(first)
        if not row.more_images:
            return first
        if not self.takes_several_images:
            raise RequestError(f"{self.architecture} is shown one picture at a time")
        return self._side_by_side([first, *map(self._cached_features, row.more_images)])

    def _side_by_side(self, features: Sequence[ImageFeatures]) -> ImageFeatures:
        """Several pictures as one row shows them; the first one's key is the row's."""
        names = features[0].extras
        all_known = all(each.content for each in features)
        return ImageFeatures(
            torch.cat([each.patches for each in features]),
            features[0].key,
            tuple(p for each in features for p in each.pictures or (self.usual_picture,)),
            {name: torch.cat([each.extras[name] for each in features]) for name in names},
            sketch=features[0].sketch,
            content=b"".join(each.content for each in features) if all_known else b"",
        )

    def _cached_features(self, image: ImageArray) -> ImageFeatures:
        digest = hashlib.sha256(str(image.shape).encode())
        digest.update(image.tobytes())
        key = digest.digest()
        found = self._features.get(key)
        if found is None:
            found = replace(self.compute_features(image), content=key)
            tensors = (found.patches, *found.extras.values())
            size = sum(tensor.nbytes for tensor in tensors)
            # The newest is kept, however large it is.
            self._features.put(key, found, min(size, _FEATURE_CACHE_BYTES))
        return found


def _without_picture(row: PreparedRow) -> PreparedRow:
    """The row up to its last word, its picture's tokens left out."""
    start, stop = row.spans.prompt
    ids = row.ids[:stop]
    shown = row.shown or row.spans.vision
    if shown is not None:
        first, end = shown
        ids = (*ids[:first], *ids[end:])
        if start >= end:
            start, stop = start - (end - first), stop - (end - first)
    last = len(ids) - 1
    spans = TokenSpans(
        vision=None, prompt=(start, stop), last_prompt=last, target=(last + 1, last + 1)
    )
    return PreparedRow(ids, spans, None)
