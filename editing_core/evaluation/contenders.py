"""Contenders that edit through experts: LiveEdit as it is served, its forms and its ablations.

All are snapshots of one `EditableModel`, made by `EditSession` as the service makes them. Only
`liveedit` verifies: an ablation that refused what it breaks would hide what it breaks. So each
ablation is to be read beside `liveedit-unverified`, from which it differs in one thing:

    liveedit-paper        the published form: rank-4 experts on every row, text-only weights
    text_only_weights     the published weights, sigmoid x softmax of the text score, no text gate
    no_soft_routing       the plain mean of all that pass the image filter and the sentinel
    no_sentinel           no learned look at the picture; filter and text alone
    no_image_filter       every edit passes on to the sentinel and the text
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from editing_core.backbones.batch import PromptRow
from editing_core.checkpoint import CheckpointLayout
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editing import EditSession, Verify
from editing_core.editors.base import Editor
from editing_core.errors import CheckpointMissing
from editing_core.evaluation.contender import MAX_ANSWER_TOKENS, Contender, Query, Reply
from editing_core.evaluation.plain_mean import plain_mean
from editing_core.registry import EDITORS
from editing_core.routing.base import RouterBase
from editing_core.routing.router import Router
from editing_core.types import EditRequest, Sampling

ROWS_AT_ONCE = 32
# Scores are a few tens at most, so nothing is dropped, and they keep their float32 digits.
_NO_MARGIN = -1000.0


class SessionContender(Contender):
    """Edits of an `EditableModel`, in one `EditSession` until `reset`.

    Args:
        verify_every: with `verify="strict"`, verify only every so-manieth edit.
    """

    def __init__(
        self,
        name: str,
        model: EditableModel,
        *,
        editor: str = "liveedit",
        verify: Verify = "off",
        verify_every: int = 1,
    ) -> None:
        self.name = name
        self.model = model
        self._editor = editor
        self._verify: Verify = verify
        self._verify_every = verify_every
        self.reset()

    def reset(self) -> None:
        """Back to the unedited model."""
        self._session = EditSession(self.model, editor=self._editor, verify=self._verify)
        self._made = 0
        self._verified = 0
        self._refused: Counter[str] = Counter()
        self._steps: list[int] = []

    def edit(self, request: EditRequest) -> bool:
        """Make one edit; False when verification refused it."""
        is_sampled = self._made % self._verify_every == 0
        self._session.verify = self._verify if is_sampled else "off"
        outcome = self._session.edit(request)
        self._made += 1
        self._verified += is_sampled and self._verify != "off"
        if outcome.reason is not None:
            self._refused[outcome.reason] += 1
        if outcome.refinement_steps:
            self._steps.append(outcome.refinement_steps)
        return outcome.accepted

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Free greedy answers; see `Contender.answer`."""
        sampling = Sampling(max_new_tokens=MAX_ANSWER_TOKENS)
        snapshot = self._session.snapshot
        replies: list[Reply] = []
        for start in range(0, len(queries), ROWS_AT_ONCE):
            chunk = queries[start : start + ROWS_AT_ONCE]
            began = time.perf_counter()
            results = self.model.generate(
                [GenerationRow(q.prompt, q.image, sampling, snapshot) for q in chunk]
            )
            each = (time.perf_counter() - began) * 1e3 / len(chunk)
            replies.extend(
                Reply(
                    text=result.text,
                    stopped=result.finish_reason == "stop",
                    fired=len(result.decision.applied),
                    survivors=len(result.decision.candidates),
                    milliseconds=each,
                )
                for result in results
            )
        return replies

    def token_accuracy(self, queries: Sequence[Query], targets: Sequence[str]) -> list[float]:
        """Teacher-forced; see `Contender.token_accuracy`."""
        ids = [tuple(self.model.backbone.encode_target(target)) for target in targets]
        shares: list[float] = []
        for start in range(0, len(queries), ROWS_AT_ONCE):
            stop = start + ROWS_AT_ONCE
            shares.extend(self._forced(queries[start:stop], ids[start:stop]))
        return shares

    @torch.no_grad()
    def _forced(self, queries: Sequence[Query], targets: Sequence[tuple[int, ...]]) -> list[float]:
        model = self.model
        batch = model.backbone.prepare(
            [
                PromptRow(query.prompt, query.image, target_ids=ids)
                for query, ids in zip(queries, targets, strict=True)
            ]
        )
        edited = model.edited_pass(batch, [self._session.snapshot] * len(queries))
        logits = model.backbone.forward(batch, taps=edited.prefill_taps())
        shares = []
        for b, ids in enumerate(targets):
            first = batch.padding[b] + batch.rows[b].spans.last_prompt
            chosen = logits[b, first : first + len(ids)].argmax(-1).tolist()
            shares.append(fmean(float(a == b) for a, b in zip(chosen, ids, strict=True)))
        return shares

    def diagnostics(self) -> Mapping[str, float]:
        """Refusals by reason; of the verified edits, the share refined, and the steps it took."""
        found = {
            f"refused: {reason}": count / self._made for reason, count in self._refused.items()
        }
        if self._verified:
            found["verified"] = self._verified / self._made
            found["refined"] = len(self._steps) / self._verified
            found["refinement steps"] = fmean(self._steps) if self._steps else 0.0
        return found


class EditsOff(Contender):
    """Makes every edit of another contender and takes it back at once.

    What it measures is the unedited model, and that `reset` gives it back whole.
    """

    def __init__(self, contender: Contender) -> None:
        self.name = contender.name
        self._inner = contender

    def reset(self) -> None:
        self._inner.reset()

    def edit(self, request: EditRequest) -> bool:
        accepted = self._inner.edit(request)
        self._inner.reset()
        return accepted

    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        return self._inner.answer(queries)

    def token_accuracy(self, queries: Sequence[Query], targets: Sequence[str]) -> list[float]:
        return self._inner.token_accuracy(queries, targets)


class Unedited(SessionContender):
    """The base model: takes every edit and does nothing with it."""

    def __init__(self, model: EditableModel) -> None:
        super().__init__("unedited", model)

    def edit(self, request: EditRequest) -> bool:
        """Nothing happens."""
        return True


def ablated(name: str, model: EditableModel) -> SessionContender:
    """The ablation of a name in `ABLATIONS`; weights and keys are shared with `model`."""
    router: RouterBase
    if name == "no_soft_routing":
        if not isinstance(model.router, Router):
            raise ValueError(f"the ablation {name} is of a trained router")
        router = plain_mean(model.router)
    else:
        router = model.router.with_thresholds(**ABLATIONS[name])
    return SessionContender(name, EditableModel(model.backbone, router, model.editors))


def paper_form(model: EditableModel) -> SessionContender:
    """LiveEdit as published; `model` must have the editor `liveedit-paper` loaded."""
    router = model.router.with_thresholds(rule="paper")
    return SessionContender(
        "liveedit-paper",
        EditableModel(model.backbone, router, model.editors),
        editor="liveedit-paper",
    )


def load_trained(folder: Path) -> tuple[str, Editor]:
    """The one editor that `errata train --out` wrote into `folder`, and its name.

    Raises `CheckpointMissing` unless there is exactly one, and what its `load` raises.
    """
    layout = CheckpointLayout(folder)
    found = [name for name in EDITORS if (folder / f"{name}.json").is_file()]
    if len(found) != 1:
        raise CheckpointMissing(
            f"{folder} holds {', '.join(found) or 'no editor'}, and one editor is wanted",
            hint=f"Train one into a folder of its own: errata train --out {folder}.",
        )
    editor: Editor = EDITORS.resolve(found[0]).load(*layout.part(found[0]))
    return found[0], editor


def trained(name: str, model: EditableModel, folder: Path) -> SessionContender:
    """The editor in `folder` under the name `name`, unverified, on the rest of `model`.

    Raises what `load_trained` raises, and `FingerprintMismatch` where it is another backbone's.
    """
    editor_name, editor = load_trained(folder)
    for module in editor.trainable_modules():
        module.to(model.backbone.device)
    own = EditableModel(model.backbone, model.router, {editor_name: editor})
    if editor_name == "liveedit-paper":
        made = paper_form(own)
        made.name = name
        return made
    return SessionContender(name, own, editor=editor_name)


ABLATIONS: dict[str, dict[str, Any]] = {
    "no_soft_routing": {},
    "no_sentinel": {"margin": _NO_MARGIN},
    "no_image_filter": {"tau": -1.0},
    "text_only_weights": {"rule": "paper"},
}
"""Thresholds that each ablation changes; `no_soft_routing` is another rule, see `plain_mean`."""
