"""What every part is measured with, drawn and computed once: pictures, questions, base states.

Nothing is read from outside: half of the pictures are emblems of the `calibration` split, half are
drawn scenes (`training/pictures.py`), each in several views, with a look-alike that differs in one
thing. What takes time is computed when it is first asked for, and told to `notify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.first_start.questions import ShippedQuestion, shipped_questions
from editing_core.sites import edit_layer_for, router_layer_for
from editing_core.states import RowStates
from editing_core.training.world import draw_view, subject
from editing_core.types import ImageArray, Notify

VIEWS = 2
"""Views of each thing shown, and as many of its look-alike."""
_SHARE_OF_SCENES = 0.5
_CHUNK = 8


@dataclass(frozen=True)
class Material:
    """See the module's docstring. Use it for one first start and drop it: it keeps what it made.

    `subjects` things are shown; `rows` questions are asked with a picture and answered.
    """

    backbone: Backbone
    subjects: int = 150
    rows: int = 96
    notify: Notify | None = None

    @property
    def router_layer(self) -> int:
        """Where a router reads."""
        return router_layer_for(self.backbone.num_layers)

    @property
    def edit_layer(self) -> int:
        """Where an editor without training acts."""
        return edit_layer_for(self.backbone.num_layers)

    @cached_property
    def image_keys(self) -> NDArray[np.float32]:
        """`[subjects, 2, VIEWS, image_key_dim]`: of each thing's views and its look-alike's."""
        made = []
        for number, (own, other) in enumerate(self.pictures):
            keys = [self.backbone.compute_features(image).key for image in (*own, *other)]
            made.append(np.stack(keys).reshape(2, VIEWS, -1))
            self._tell("image keys", number + 1, self.subjects)
        return np.stack(made)

    @cached_property
    def pictures(self) -> list[tuple[list[ImageArray], list[ImageArray]]]:
        """Of each thing shown its views, and those of its look-alike."""
        made = []
        for number in range(self.subjects):
            shown = subject(number, "calibration", everyday_share=_SHARE_OF_SCENES)
            made.append(shown.pictures(VIEWS, draw_view))
            self._tell("pictures", number + 1, self.subjects)
        return made

    def words(self, questions: Sequence[ShippedQuestion]) -> list[list[Tensor]]:
        """Each wording's words without a picture at the router's layer, `[words, hidden]`."""
        made = []
        for number, question in enumerate(questions):
            laid_out = [self.backbone.lay_out(text, has_image=True) for text in question.wordings]
            made.append(self.backbone.word_states(laid_out, self.router_layer))
            self._tell("wordings", number + 1, len(questions))
        return made

    @cached_property
    def asked(self) -> tuple[PromptRow, ...]:
        """The rows: every question in turn on a picture of its own, with its plausible answer."""
        made, questions = [], shipped_questions()
        for number in range(self.rows):
            question = questions[number % len(questions)]
            wording = question.wordings[number // len(questions) % len(question.wordings)]
            image = self.pictures[number % self.subjects][0][0]
            made.append(PromptRow(wording, image, target=question.answer))
        return tuple(made)

    @torch.no_grad()
    def row_states(self, layer: int) -> Iterator[RowStates]:
        """Base states of the `asked` rows at one layer, float32, padding stripped.

        `spans.last_prompt` and the rows of `spans.target` are where an answer is made.
        """
        for start in range(0, len(self.asked), _CHUNK):
            batch = self.backbone.prepare(self.asked[start : start + _CHUNK])
            hidden = self.backbone.lower(batch, layer)
            for row, states, padding in zip(batch.rows, hidden, batch.padding, strict=True):
                yield RowStates(states[padding:].float(), row.spans)
            self._tell("rows", min(start + _CHUNK, len(self.asked)), len(self.asked))

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.notify is not None:
            self.notify(what, done, total)
