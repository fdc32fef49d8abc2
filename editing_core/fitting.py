"""What an editor sees of an edit beside its own row, and the gradient steps that finish its expert.

Most editors see one row and take no step. One that names companions (`Editor.companions`) has them
laid out here, a few rows at a time, with the same target; one that asks for a fit (`Editor.fit`)
has its expert moved until the target is the answer to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.editors.base import Companion, Editor, Seen
from editing_core.errors import ContextTooLong
from editing_core.generation import IsCancelled
from editing_core.refinement import RefinedPass, refine
from editing_core.states import EditStates
from editing_core.types import EditArtifact, EditRequest, OnProgress

_NEW = "new"
"""Stands for the edit that is being made; it has no id yet."""


@dataclass(frozen=True, eq=False)
class EditRows:
    """Teacher-forced rows of one target: the edit's own first, then its companions'.

    `batches` are run one by one; `below[i]` `[batch, T, hidden]` is what the edit layer's block
    gave for `batches[i]`.
    """

    backbone: Backbone
    target_ids: tuple[int, ...]
    companions: Sequence[Companion]
    batches: Sequence[PreparedBatch]
    below: Sequence[Tensor]

    @classmethod
    @torch.no_grad()
    def see(
        cls,
        request: EditRequest,
        target_ids: tuple[int, ...],
        own: PreparedBatch,
        below: Tensor,
        *,
        backbone: Backbone,
        editor: Editor,
    ) -> EditRows:
        """The rows that `editor` wants of `request`; `own` is the edit's row, with its states."""
        companions = _readable(editor.companions(request), target_ids, backbone)
        if not companions:
            return cls(backbone, target_ids, (), [own], [below])
        asked = [(request.prompt, request.image), *((c.prompt, c.image) for c in companions)]
        rows = [PromptRow(prompt, image, target_ids=target_ids) for prompt, image in asked]
        size = editor.rows_at_once
        batches = [backbone.prepare(rows[i : i + size]) for i in range(0, len(rows), size)]
        return cls(
            backbone,
            target_ids,
            companions,
            batches,
            [backbone.lower(batch, editor.edit_layer) for batch in batches],
        )

    def states(self) -> tuple[EditStates, list[Seen]]:
        """What an editor reads: the edit's own row, and what became of its companions."""
        ids = torch.tensor(self.target_ids, device=self.backbone.device)
        embeddings = self.backbone.embed_tokens(self.target_ids).float()
        own, *others = [
            EditStates(hidden[b, padding:].float(), row.spans, ids, embeddings)
            for batch, hidden in zip(self.batches, self.below, strict=True)
            for b, (row, padding) in enumerate(zip(batch.rows, batch.padding, strict=True))
        ]
        return own, list(zip(self.companions, others, strict=True))

    def fit(
        self,
        artifact: EditArtifact,
        editor: Editor,
        *,
        is_cancelled: IsCancelled | None = None,
        on_progress: OnProgress | None = None,
    ) -> EditArtifact:
        """The expert after the steps that `editor` asks for, rounded as it will be stored.

        One that does not make the target the answer everywhere is returned as it is, for
        verification to judge. Raises what `refine` raises.
        """
        fit = editor.fit(artifact)
        if fit is None:
            if on_progress is not None:
                on_progress(1, 1, 0.0)
            return artifact
        begun = replace(artifact, payload={**artifact.payload, **half(fit.adds)})
        passes = [
            RefinedPass(
                batch,
                [[(_NEW, begun, 1.0)]] * len(batch.rows),
                backbone=self.backbone,
                editors={artifact.editor: editor},
                below=below,
            )
            for batch, below in zip(self.batches, self.below, strict=True)
        ]
        fitted = refine(
            _NEW,
            begun,
            [
                (run, [self.target_ids] * len(batch.rows))
                for run, batch in zip(passes, self.batches, strict=True)
            ],
            movable=tuple(fit.units),
            units=fit.units,
            optimise=fit.optimise,
            max_steps=fit.max_steps,
            margin=fit.margin,
            is_cancelled=is_cancelled,
            on_progress=on_progress,
        )
        # What it began with adds nothing by itself, and need not be kept.
        return fitted.artifact if fitted.steps else artifact


def half(payload: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A payload as it is stored: float16 on the CPU."""
    return {name: tensor.to("cpu", torch.float16) for name, tensor in payload.items()}


def _readable(
    companions: Sequence[Companion], target_ids: tuple[int, ...], backbone: Backbone
) -> list[Companion]:
    """Those that the model can read whole."""
    found = []
    for companion in companions:
        (features,) = backbone.image_features([companion.image])
        try:
            backbone.lay_out(
                companion.prompt,
                has_image=True,
                target_ids=target_ids,
                pictures=features.pictures,
            )
        except ContextTooLong:
            continue  # the edit's own words fit, and are seen
        found.append(companion)
    return found
