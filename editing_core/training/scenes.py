"""Pictures seen and questions asked by the frozen base model, computed once and kept.

    Picture   template opening and image rows of one picture
    Asked     the rows of one question on that picture, up to the last prompt token

Both are stretches of one sequence, so a thousand questions about a picture read it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.errors import TrainingError
from editing_core.states import EditStates, RowStates
from editing_core.training.frozen import FrozenDecoder, Stretch
from editing_core.types import ImageArray, TokenSpans


@dataclass(frozen=True)
class Picture:
    """One picture: its rows, where the image lies in them, and its image key."""

    stretch: Stretch
    vision: tuple[int, int]
    key: NDArray[np.float32]

    @property
    def image_states(self) -> Tensor:
        """`[patches, hidden]` in the storage type."""
        return self.stretch.states[self.vision[0] : self.vision[1]]


@dataclass(frozen=True, eq=False)
class Asked:
    """One question on one picture.

    `stretch` holds the rows after the image and before the last prompt token; `words` is the range
    of the user's words in the whole sequence; `last_id` the last prompt token.
    """

    picture: Picture
    prompt: str
    stretch: Stretch
    words: tuple[int, int]
    last_id: int

    @property
    def prefix(self) -> tuple[Stretch, Stretch]:
        """Everything before the last prompt token."""
        return self.picture.stretch, self.stretch

    def spans(self, target: int = 0) -> TokenSpans:
        """Spans of the whole sequence with `target` answer tokens after it."""
        last = self.stretch.end
        return TokenSpans(
            vision=self.picture.vision,
            prompt=self.words,
            last_prompt=last,
            target=(last + 1, last + 1 + target),
        )

    def query_states(self) -> RowStates:
        """The rows before the last prompt token, float32."""
        hidden = torch.cat([self.picture.stretch.states, self.stretch.states]).float()
        return RowStates(hidden=hidden, spans=self.spans())

    def edit_states(self, answer: Tensor, target_ids: Tensor, embeddings: Tensor) -> EditStates:
        """What an editor reads, given the base states of the answer rows `[slots, hidden]`."""
        hidden = torch.cat([self.query_states().hidden, answer])
        return EditStates(
            hidden=hidden,
            spans=self.spans(len(target_ids)),
            target_ids=target_ids,
            target_embeddings=embeddings,
        )


class Stage:
    """Shows pictures to a backbone and asks about them, a chunk at a time.

    Args:
        all_blocks: whether the stretches must carry answers through the whole model; a router
            needs only the states.

    Raises `TrainingError` for a backbone whose prefixes cannot be kept (`has_plain_prefix`), and on
    a device other than the CPU.
    """

    def __init__(
        self, backbone: Backbone, frozen: FrozenDecoder, *, all_blocks: bool, chunk: int = 32
    ) -> None:
        if not backbone.has_plain_prefix or backbone.device.type != "cpu":
            raise TrainingError(
                f"prefixes of {backbone.architecture} on {backbone.device} cannot be kept and "
                "continued",
                hint="Train it as any backbone is (docs/training.md): name a dataset or a device.",
            )
        self.backbone = backbone
        self.frozen = frozen
        self._all_blocks = all_blocks
        self._chunk = chunk
        row = backbone.lay_out("x", has_image=True)
        if row.spans.vision is None:
            raise ValueError("this backbone lays out no image")
        self._vision = row.spans.vision
        self._opening = row.ids[: self._vision[0]]

    def show(self, images: Sequence[ImageArray]) -> list[Picture]:
        """Compute each picture's rows and key."""
        pictures: list[Picture] = []
        for start in range(0, len(images), self._chunk):
            features = [
                self.backbone.compute_features(image)
                for image in images[start : start + self._chunk]
            ]
            opening = self.frozen.embed(self._opening)
            rows = [torch.cat([opening, feature.patches]) for feature in features]
            stretches = self.frozen.extend(rows, all_blocks=self._all_blocks)
            pictures.extend(
                Picture(stretch, self._vision, feature.key)
                for stretch, feature in zip(stretches, features, strict=True)
            )
        return pictures

    def read(self, prompts: Sequence[str]) -> list[Tensor]:
        """The words of each prompt without a picture, `[words, hidden]` in the storage type."""
        laid_out = [self.backbone.lay_out(prompt, has_image=True) for prompt in prompts]
        words: dict[int, Tensor] = {}
        # Prompts of like length share a chunk, so that little is spent on padding.
        order = sorted(range(len(prompts)), key=lambda i: len(laid_out[i].ids))
        for start in range(0, len(order), self._chunk):
            chunk = order[start : start + self._chunk]
            found = self.backbone.word_states([laid_out[i] for i in chunk], self.frozen.layer)
            words |= dict(zip(chunk, found, strict=True))
        return [words[i].to(self.frozen.storage) for i in range(len(prompts))]

    def ask(self, questions: Sequence[tuple[Picture, str]]) -> list[Asked]:
        """Compute each question's rows on its picture."""
        laid_out = [self.backbone.lay_out(prompt, has_image=True) for _, prompt in questions]
        asked: list[Asked | None] = [None] * len(questions)
        # Questions of like length share a chunk, so that little is spent on padding.
        order = sorted(range(len(questions)), key=lambda i: len(laid_out[i].ids))
        after = self._vision[1]
        for start in range(0, len(order), self._chunk):
            chunk = order[start : start + self._chunk]
            rows = [
                self.frozen.embed(laid_out[i].ids[after : laid_out[i].spans.last_prompt])
                for i in chunk
            ]
            stretches = self.frozen.extend(
                rows,
                before=[questions[i][0].stretch for i in chunk],
                all_blocks=self._all_blocks,
            )
            for i, stretch in zip(chunk, stretches, strict=True):
                picture, prompt = questions[i]
                row = laid_out[i]
                last = row.ids[row.spans.last_prompt]
                asked[i] = Asked(picture, prompt, stretch, row.spans.prompt, last)
        return [a for a in asked if a is not None]
