"""One question attributed: the answer, what each module contributed to it, and where it looked.

    model = EditableModel.load()
    found = attribute(model, image, "What colour is the star?")
    found.answer, found.recommended_layer, found.influence

It is the base model that is attributed: no edit takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from editing_core.attribution.contributions import (
    LayerContribution,
    contributions,
    recommended_layer,
)
from editing_core.attribution.influence import Perturbation, influence
from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, PromptRow
from editing_core.backbones.watching import ModuleCall, watching
from editing_core.errors import AnswerTooShort
from editing_core.generation import GenerationRow, IsCancelled, refuse_not_finite
from editing_core.types import ImageArray, Sampling

if TYPE_CHECKING:
    from editing_core.editable_model import EditableModel

_MOST_MODULES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One pass up to a token: which token came next, and how every block had its part in it.

    `attentions` are the calls of the blocks' attention modules; the patches of the picture lie at
    their columns `first_patch` and following, in the reading order of `grid`.
    """

    token_id: int
    layers: tuple[LayerContribution, ...]
    attentions: tuple[ModuleCall, ...]
    first_patch: int
    grid: tuple[int, int]

    @property
    def attention_curve(self) -> list[float]:
        """Attention's contribution, block by block."""
        return [layer.attention for layer in self.layers]

    def influence(
        self,
        blocks: Sequence[int],
        *,
        noise: Perturbation | None = None,
        is_cancelled: IsCancelled | None = None,
    ) -> NDArray[np.float32]:
        """Each patch's, float32 `[rows, columns]`, averaged over the attention of `blocks`."""
        found = influence(
            [self.attentions[block] for block in blocks],
            first_patch=self.first_patch,
            grid=self.grid,
            noise=noise,
            is_cancelled=is_cancelled,
        )
        patches: NDArray[np.float32] = found.numpy()
        return patches


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """What became of one question.

    `answer` is the base model's, greedy; `token` is the place in it of the token attributed, and
    `token_text` its text (empty for the stop token). `influence` float32 `[rows, columns]` lies
    over the picture as the model is shown it, mostly letterboxed: the mean over the attention of
    `influence_layers`.
    """

    answer: str
    token: int
    token_text: str
    layers: tuple[LayerContribution, ...]
    recommended_layer: int
    influence_layers: tuple[int, ...]
    influence: NDArray[np.float32]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.influence.shape
        return rows, columns


@torch.no_grad()
def read(
    backbone: Backbone,
    image: ImageArray | ImageFeatures,
    prompt: str,
    *,
    answer_ids: Sequence[int] = (),
) -> Reading:
    """Prefill picture, prompt and the beginning of an answer, and look on. Greedy token next.

    The KV cache changes nothing here: decoding `answer_ids` one by one meets the same states.
    Raises `ContextTooLong` and `NotFinite`.
    """
    batch = backbone.prepare([PromptRow(prompt, image, target_ids=tuple(answer_ids))])
    (row,) = batch.rows
    assert row.features is not None
    joining = [module for pair in backbone.added for module in pair]
    with watching([*backbone.attentions, *joining]) as calls:
        logits, _ = backbone.prefill(batch)
    refuse_not_finite(logits, [0])
    token_id = int(logits[0].argmax())
    blocks = range(backbone.num_layers)
    places = range(backbone.num_layers, 3 * backbone.num_layers)
    outputs = torch.stack([calls[place].output[0, -1] for place in places])
    picture = (row.features.pictures or (backbone.usual_picture,))[0]
    own = row.spans.vision_rows
    patches = own if isinstance(own, list) else range(own.start, own.stop)
    return Reading(
        token_id=token_id,
        layers=contributions(backbone, outputs[0::2], outputs[1::2], token_id),
        attentions=tuple(calls[block] for block in blocks),
        first_patch=patches[picture.grid_start],
        grid=picture.grid or (1, picture.num_tokens),
    )


def attribute(
    model: EditableModel,
    image: ImageArray,
    prompt: str,
    *,
    token: int = 0,
    noise: Perturbation | None = None,
    max_new_tokens: int = 80,
    is_cancelled: IsCancelled | None = None,
) -> Attribution:
    """Answer greedily with the KV cache, then attribute token number `token` of the answer.

    The recommended layer is one where an editor of this model may act: not below its router's.
    Influence is the mean over the attention of the blocks that an edit can reach, those above the
    router's layer (`reached_blocks`).

    Raises:
        ContextTooLong: the prompt does not fit the model.
        AnswerTooShort: the answer has no such token. The stop token is one.
        GenerationCancelled: `is_cancelled` said so.
    """
    asked = GenerationRow(prompt, image, Sampling(max_new_tokens))
    (result,) = model.generate([asked], is_cancelled=is_cancelled)
    answer_ids = result.token_ids
    if not 0 <= token < len(answer_ids):
        raise AnswerTooShort(
            f"the answer has {len(answer_ids)} tokens, counted from 0; there is no token {token}"
        )
    reading = read(model.backbone, image, prompt, answer_ids=answer_ids[:token])
    blocks = reached_blocks(model)
    return Attribution(
        answer=result.text,
        token=token,
        token_text=model.backbone.text_of([reading.token_id]),
        layers=reading.layers,
        recommended_layer=recommended_layer(reading.attention_curve, lowest=model.router.layer),
        influence_layers=blocks,
        influence=reading.influence(blocks, noise=noise, is_cancelled=is_cancelled),
    )


def reached_blocks(model: EditableModel) -> tuple[int, ...]:
    """The blocks whose attention is looked into: those above the lowest layer that edits may have.

    Of more than four, four evenly chosen from the first to the last.
    """
    blocks = range(model.router.layer + 1, model.backbone.num_layers)
    if len(blocks) <= _MOST_MODULES:
        return tuple(blocks)
    places = np.linspace(0, len(blocks) - 1, _MOST_MODULES).round().astype(int)
    return tuple(blocks[place] for place in places)
