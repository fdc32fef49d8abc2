"""What an editor sees of an edit beside its own row, and the gradient steps that finish its expert.

Most editors see one row and take no step. One that names companions (`Editor.companions`) has them
laid out here, a few rows at a time, with the same target; one that asks for a fit (`Editor.fit`)
has its expert moved until the target is the answer to them. Rows that only the fit asks for are
prepared as their turn comes: most edits need few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.editors.base import Companion, Editor, Seen
from editing_core.errors import ContextTooLong, PictureNotReadable
from editing_core.generation import IsCancelled
from editing_core.refinement import RefinedPass, Turn, refine
from editing_core.states import EditStates
from editing_core.types import EditArtifact, EditRequest, OnProgress

_NEW = "new"
"""Stands for the edit that is being made; it has no id yet."""

_KEPT_BYTES = 256 * 2**20
"""Of prepared turns; what is more is prepared anew each time."""


@dataclass(frozen=True, eq=False)
class EditRows:
    """Teacher-forced rows of one target: the edit's own first, then its companions'.

    `batches` are run one by one; `below[i]` `[batch, T, hidden]` is what the edit layer's block
    gave for `batches[i]`.
    """

    backbone: Backbone
    request: EditRequest
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
            return cls(backbone, request, target_ids, (), [own], [below])
        rows = _rows(request, companions, target_ids)
        size = editor.rows_at_once
        batches = [backbone.prepare(rows[i : i + size]) for i in range(0, len(rows), size)]
        return cls(
            backbone,
            request,
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
        fit = editor.fit(self.request, self.states()[0], artifact)
        if fit is None:
            if on_progress is not None:
                on_progress(1, 1, 0.0)
            return artifact
        turns = _Turns(self, artifact, editor, fit.companions)
        if fit.begins is not None:
            tried = refine(
                _NEW,
                artifact,
                turns,
                movable=editor.movable(artifact, keeps=False),
                max_steps=0,
                margin=fit.margin,
                settled=fit.settled,
                is_cancelled=is_cancelled,
            )
            if tried.is_right:
                return artifact
            artifact = replace(artifact, payload=fit.begins)
        return refine(
            _NEW,
            artifact,
            turns,
            movable=tuple(fit.units),
            units=fit.units,
            optimise=fit.optimise,
            max_steps=fit.max_steps,
            margin=fit.margin,
            reach=fit.reach,
            is_slowed=fit.is_slowed,
            settled=fit.settled,
            is_cancelled=is_cancelled,
            on_progress=on_progress,
        ).artifact


class _Turns(Sequence[Turn]):
    """The rows that an expert is fitted on: those it was made of, then further ones, some at a
    time with the edit's own row first. Prepared when they are first asked for, and kept while they
    are not too many."""

    def __init__(
        self, rows: EditRows, artifact: EditArtifact, editor: Editor, more: Sequence[Companion]
    ) -> None:
        self._rows, self._artifact, self._editor = rows, artifact, editor
        # Further turns show the edit's own row as well.
        self._seen = 0 if more and not rows.companions else len(rows.batches)
        size = editor.rows_at_once - 1
        self._more = [more[start : start + size] for start in range(0, len(more), size)]
        self._kept: dict[int, RefinedPass] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return self._seen + len(self._more)

    def __getitem__(self, index: Any) -> Any:
        run = self._kept.get(index)
        if run is None:
            run = self._prepare(index)
            self._bytes += run.nbytes
            if self._bytes <= _KEPT_BYTES:
                self._kept[index] = run
        return run, [self._rows.target_ids] * run.num_rows

    def _prepare(self, index: int) -> RefinedPass:
        rows, backbone = self._rows, self._rows.backbone
        if index < self._seen:
            batch, below = rows.batches[index], rows.below[index]
        else:
            readable = _readable(self._more[index - self._seen], rows.target_ids, backbone)
            batch = backbone.prepare(_rows(rows.request, readable, rows.target_ids))
            with torch.no_grad():
                below = backbone.lower(batch, self._editor.edit_layer)
        return RefinedPass(
            batch,
            [[(_NEW, self._artifact, 1.0)]] * len(batch.rows),
            backbone=backbone,
            editors={self._artifact.editor: self._editor},
            below=below,
        )


def _rows(
    request: EditRequest, companions: Sequence[Companion], target_ids: tuple[int, ...]
) -> list[PromptRow]:
    asked = [(request.prompt, request.image), *((c.prompt, c.image) for c in companions)]
    return [PromptRow(prompt, image, target_ids=target_ids) for prompt, image in asked]


def _readable(
    companions: Sequence[Companion], target_ids: tuple[int, ...], backbone: Backbone
) -> list[Companion]:
    """Those that the model can read whole."""
    found = []
    for companion in companions:
        try:
            (features,) = backbone.image_features([companion.image])
            backbone.lay_out(
                companion.prompt,
                has_image=True,
                target_ids=target_ids,
                pictures=features.pictures,
            )
        except (ContextTooLong, PictureNotReadable):
            continue  # the edit's own words and picture fit, and are seen
        found.append(companion)
    return found
