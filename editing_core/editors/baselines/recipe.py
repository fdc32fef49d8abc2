"""RECIPE-style: each edit becomes a soft prompt, and the right one is put before the question.

Chen et al., "Lifelong Knowledge Editing for LLMs with Retrieval-Augmented Continuous Prompt
Learning" (RECIPE, arXiv 2405.03279), section 4: an edit is a short continuous prompt; a query
retrieves the nearest edit unless a learned sentinel is nearer; its prompt is put before the query's
embeddings. Two parts differ here. The prompt is learned for each edit by gradient (Lester et al.,
"The Power of Scale for Parameter-Efficient Prompt Tuning", arXiv 2104.08691, section 2) instead of
by a trained encoder. And the retriever is this project's trained router, image key, sentinel and
text gate as in LiveEdit, of which the first edit is taken: so the two differ in what an edit *is*,
and no weaker retrieval speaks against this one.

The soft prompt stands between the picture's tokens and the user's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import (
    ImageFeatures,
    PreparedBatch,
    PreparedRow,
    PromptRow,
    collate,
)
from editing_core.editors.baselines.base import Acting, Baseline
from editing_core.editors.baselines.lesson import Lesson, descend
from editing_core.errors import ContextTooLong
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.identity import image_digest, slot_prompt
from editing_core.routing.base import RouterBase
from editing_core.states import RoutingStates
from editing_core.types import EditArtifact, EditRequest, RoutingDecision, TokenSpans


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """`tokens` is the soft prompt's length."""

    tokens: int = 24
    rate: float = 0.1
    steps: int = 100
    stop_at: float = 0.05


class Recipe(Baseline):
    """See the module's docstring."""

    name = "recipe"
    settings_type = RecipeSettings
    grid: ClassVar[Mapping[str, Sequence[Any]]] = {
        "tokens": (8, 16, 24),
        "rate": (0.03, 0.1, 0.3),
        "steps": (30, 60, 100),
        "stop_at": (0.01, 0.05, 0.2),
    }

    def __init__(
        self,
        backbone: Backbone,
        router: RouterBase,
        settings: RecipeSettings = RecipeSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, router, settings, seed=seed)
        self.reset()

    def reset(self) -> None:
        """Forget every edit."""
        self._memory = Snapshot.empty(self.backbone.image_key_dim)
        self._random = torch.Generator().manual_seed(self.seed)

    def edit(self, request: EditRequest) -> None:
        """Learn its prompt, file it under its keys; of one picture and prompt only the latest."""
        backbone, settings = self.backbone, self.settings
        plain = Lesson.of(backbone, request)
        row = plain.batch.rows[0]
        start = self._first_guess(plain.target_ids)
        longer = with_soft_prompt(row, start, backbone)
        lesson = Lesson(
            collate([longer], pad_token_id=backbone.pad_token_id, device=backbone.device),
            plain.target_ids,
        )
        embeddings = backbone.embed(lesson.batch)
        end = lesson.vision[1]
        # What stands before the soft prompt is the same at every step.
        prefix, after = backbone.read(lesson.batch, end - len(start)), embeddings[:, end:]
        prompt = start.clone().requires_grad_()

        def loss() -> Tensor:
            inputs = torch.cat([prompt.to(after.dtype)[None], after], dim=1)
            logits = backbone.forward_after(prefix, lesson.batch, inputs)
            return lesson.answer_loss(logits[:, -1 - len(lesson.target_ids) : -1])

        descend([prompt], loss, rate=settings.rate, steps=settings.steps, stop_at=settings.stop_at)
        self._keep(request, row, plain.batch, prompt.detach())

    def begin(self, rows: Sequence[PromptRow]) -> tuple[PreparedBatch, Acting]:
        """Lay out `rows`, each with the soft prompt that its picture and words retrieve."""
        batch, acting = super().begin(rows)
        acting.fired, acting.survivors = [0] * len(rows), [0] * len(rows)
        decisions = self._route(batch)
        laid_out = list(batch.rows)
        for b, decision in decisions.items():
            acting.decisions[b] = decision
            acting.survivors[b] = len(decision.candidates)
            if decision.applied:
                first = self._memory.entries[decision.applied[0].edit_id].artifact
                laid_out[b] = with_soft_prompt(
                    laid_out[b], first.payload["soft_prompt"], self.backbone
                )
                acting.fired[b] = 1
        if not any(acting.fired):
            return batch, acting
        device = self.backbone.device
        return collate(laid_out, pad_token_id=self.backbone.pad_token_id, device=device), acting

    def _first_guess(self, target_ids: Tensor) -> Tensor:
        """Embeddings of the target's tokens, over and over: float32 `[tokens, hidden]`.

        The start that Lester et al. found best (their section 3.2, "class label").
        """
        ids = target_ids[torch.arange(self.settings.tokens) % len(target_ids)]
        return self.backbone.embed_tokens(ids.tolist()).float()

    def _keep(
        self, request: EditRequest, row: PreparedRow, batch: PreparedBatch, prompt: Tensor
    ) -> None:
        assert row.features is not None
        assert row.spans.vision is not None
        seen = self.backbone.lower(batch, self.router.layer)[0, slice(*row.spans.vision)].float()
        (words,) = self.backbone.word_states([row], self.router.layer)
        artifact = EditArtifact(
            editor=self.name,
            edit_layer=self.router.layer,
            positions="all",
            payload={"soft_prompt": prompt},
            key=self.router.keys(RoutingStates(seen, words), row.features.key),
            backbone_fingerprint=self.backbone.fingerprint,
            editor_fingerprint="",
            router_fingerprint=self.router.fingerprint,
        )
        digest = image_digest(request.image)
        slot = f"{digest} {slot_prompt(request.prompt)}"
        self._memory = self._memory.evolve(
            self._memory.version + 1,
            activate=[MemoryEntry.of(slot, artifact, request, image_digest=digest)],
            deactivate=[slot] if slot in self._memory.entries else [],
        )

    @torch.no_grad()
    def _route(self, batch: PreparedBatch) -> dict[int, RoutingDecision]:
        """Decisions of the rows whose picture finds anything, from base states."""
        found = {
            b: survivors
            for b, row in enumerate(batch.rows)
            if row.features is not None
            and (survivors := self.router.hard_filter(row.features.key, self._memory))
        }
        if not found:
            return {}
        states = self.backbone.lower(batch, self.router.layer)
        asked = [batch.rows[b] for b in found]
        words = self.backbone.word_states(asked, self.router.layer)
        decisions: dict[int, RoutingDecision] = {}
        for row, read, (b, survivors) in zip(asked, words, found.items(), strict=True):
            assert row.spans.vision is not None
            start, stop = (edge + batch.padding[b] for edge in row.spans.vision)
            query = RoutingStates(states[b, start:stop].float(), read)
            decisions[b] = self.router.route(query, survivors, self._memory)
        return decisions


def with_soft_prompt(row: PreparedRow, prompt: Tensor, backbone: Backbone) -> PreparedRow:
    """`row` with `prompt` `[tokens, hidden]` after its picture, as if the picture went on.

    Raises `ContextTooLong`.
    """
    assert row.features is not None
    assert row.spans.vision is not None
    start, end = row.spans.vision
    extra = len(prompt)
    needed = len(row.ids) + extra
    if needed >= backbone.max_positions:
        raise ContextTooLong(
            f"with its soft prompt the row needs {needed} tokens; "
            f"the model reads {backbone.max_positions}"
        )

    def moved(span: tuple[int, int]) -> tuple[int, int]:
        return (span[0] + extra, span[1] + extra) if span[0] >= end else span

    patches = row.features.patches
    return PreparedRow(
        ids=(*row.ids[:end], *(backbone.image_token_id,) * extra, *row.ids[end:]),
        spans=TokenSpans(
            vision=(start, end + extra),
            prompt=moved(row.spans.prompt),
            last_prompt=row.spans.last_prompt + extra,
            target=moved(row.spans.target),
        ),
        features=ImageFeatures(torch.cat([patches, prompt.to(patches)]), row.features.key),
        prompt=row.prompt,
    )
