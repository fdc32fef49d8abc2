"""In-context memory: put what was corrected about this picture into the prompt, change no weight.

Zheng et al., "Can We Edit Factual Knowledge by In-Context Learning?" (IKE, arXiv 2305.12740),
section 3: the new fact is shown before the question. Where that paper draws demonstrations from a
training set by sentence similarity, here the edits themselves are the memory, and they are found as
LiveEdit finds them: exact search of the image key, cosine >= the router's `tau`. The words are not
compared: to tell which correction answers the question is what in-context learning claims to do.

Nearest last, beside the question; what does not fit into the context is left out, farthest first.
It works as well as the model reads its prompt. A small model trained on single questions hardly
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import ImageFeatures, PreparedBatch, PromptRow
from editing_core.config import MAX_TARGET_TOKENS
from editing_core.editors.baselines.base import Acting, Baseline
from editing_core.errors import ContextTooLong
from editing_core.identity import image_digest, slot_prompt
from editing_core.index.exact import ExactIndex
from editing_core.routing.base import RouterBase
from editing_core.types import EditRequest, ImageArray

ANSWER_ROOM = MAX_TARGET_TOKENS + 2
"""Tokens left free for an answer."""


@dataclass(frozen=True, slots=True)
class InContextSettings:
    """`fact` is how one edit is told, `most` how many are told at once."""

    fact: str = "{prompt} {target}. "
    most: int = 4


class InContext(Baseline):
    """See the module's docstring."""

    name = "in_context"
    settings_type = InContextSettings
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "fact": (
            "{prompt} {target}. ",
            "{prompt}\n{target}\n",
            "Question: {prompt} Answer: {target}. Question: ",
            "New fact: {prompt} {target}. Prompt: ",
            "The answer is {target}. ",
        ),
        "most": (1, 2, 4, 8),
    }

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        settings: InContextSettings = InContextSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, router, settings, seed=seed)
        self.reset()

    def reset(self) -> None:
        """Forget every edit."""
        self._index = ExactIndex(self.backbone.image_key_dim)
        self._requests: dict[str, EditRequest] = {}

    def edit(self, request: EditRequest) -> None:
        """Remember it; of one picture and prompt only the latest."""
        # Refuses what no answer could be.
        self.backbone.lay_out(
            request.prompt,
            has_image=True,
            target_ids=self.backbone.encode_target(request.target),
        )
        slot = f"{image_digest(request.image)} {slot_prompt(request.prompt)}"
        if slot not in self._requests:
            key = self.backbone.image_features([request.image])[0].key
            self._index.add([slot], key[None])
        self._requests[slot] = request

    def prompt_for(self, prompt: str, image: ImageArray | None) -> str:
        """`prompt` after the corrections found by `image`."""
        return self._told(prompt, self._found(image))[0]

    def begin(self, rows: Sequence[PromptRow]) -> tuple[PreparedBatch, Acting]:
        """Lay out `rows` with what was found before each prompt."""
        batch, acting = super().begin(rows)
        for b, row in enumerate(rows):
            if isinstance(row.image, ImageFeatures):
                raise TypeError("a baseline is asked with pictures, not with features of them")
            found = self._found(row.image)
            acting.survivors[b] = len(found)
            acting.fired[b] = self._told(row.prompt, found)[1]
        return batch, acting

    def _found(self, image: ImageArray | None) -> list[EditRequest]:
        """Nearest first."""
        if image is None or not self._requests:
            return []
        key = self.backbone.image_features([image])[0].key
        hits = self._index.range_search(key, self.router.tau)
        return [self._requests[slot] for slot, _ in hits]

    def _told(self, prompt: str, found: Sequence[EditRequest]) -> tuple[str, int]:
        """The longest prompt that fits, and how many corrections it tells."""
        for count in range(min(len(found), self.settings.most), 0, -1):
            facts = [
                self.settings.fact.format(prompt=edit.prompt, target=edit.target)
                for edit in reversed(found[:count])
            ]
            told = "".join(facts) + prompt
            try:
                self.backbone.lay_out(told, has_image=True, target_ids=(0,) * ANSWER_ROOM)
            except ContextTooLong:
                continue
            return told, count
        return prompt, 0
