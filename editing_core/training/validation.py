"""A training watched: held-out edits asked as the benchmark asks, one line a time, the best kept.

    <folder>/validation.jsonl      step, seconds, and for each kind of probe its figures
    <folder>/best/<editor>.*       the weights with the best mean exact match so far

Each held-out edit is made alone and applied through the served path, chosen by hand instead of by a
router, which is another part and may not exist yet. So locality here is what an expert does where
it was let in by mistake; a router keeps it out of most of that.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PromptRow
from editing_core.editors.liveedit import LiveEdit
from editing_core.editors.visedit import VisEdit
from editing_core.evaluation.contender import MAX_ANSWER_TOKENS
from editing_core.evaluation.probes import is_same
from editing_core.experts.weights import round_weights
from editing_core.generation import run
from editing_core.states import Intervention
from editing_core.training.by_hand import Applied, encode
from editing_core.training.checkpoint import Progress
from editing_core.training.sources import EditSource, Locality, TrainingProbe
from editing_core.types import GenerationResult, Sampling

KINDS = {"edit": "reliability", "rephrase": "text generality", "view": "image generality"}
"""The benchmark's names of what must give the target; any other role is a kind of locality."""

_KEPT_TOKENS = 32


@torch.no_grad()
def validate(
    editor: LiveEdit | VisEdit,
    backbone: Backbone,
    source: EditSource,
    numbers: Sequence[int],
    *,
    locality: Locality = "picture",
) -> dict[str, float]:
    """Figures of the given edits, by kind: `exact match` of the free greedy answer, stop token
    included, and `token accuracy`, teacher-forced, of what must give the target.

    Of an answer that must stay as it is, the first tokens are compared.
    """
    found: dict[str, list[float]] = defaultdict(list)
    layer = editor.edit_layer
    for number in numbers:
        edit = source.draw(number, np.random.default_rng([number, 37]), locality=locality)
        made = editor.intervention([(encode(editor, backbone, edit), 1.0)])
        given = [probe for probe in edit.probes if probe.answer is None]
        for probe, share in zip(
            given, _forced(backbone, given, edit.target, layer, made), strict=True
        ):
            found[f"{KINDS[probe.role]}, token accuracy"].append(share)
        # An answer that goes on for longer than this is not the target.
        most = 2 * len(backbone.encode_target(edit.target)) + _KEPT_TOKENS // 4
        answers = _answers(backbone, given, layer, made, most)
        for probe, answer in zip(given, answers, strict=True):
            is_right = answer.finish_reason == "stop" and is_same(answer.text, edit.target)
            found[f"{KINDS[probe.role]}, exact match"].append(float(is_right))
        kept = [probe for probe in edit.probes if probe.answer is not None]
        if kept:
            before = _answers(backbone, kept, layer, None, _KEPT_TOKENS)
            after = _answers(backbone, kept, layer, made, _KEPT_TOKENS)
            for probe, was, answer in zip(kept, before, after, strict=True):
                kind = f"{probe.role.replace('_', ' ')} kept"
                is_kept = answer.token_ids == was.token_ids
                found[f"{kind}, exact match"].append(float(is_kept))
    return {name: fmean(values) for name, values in found.items()}


def _answers(
    backbone: Backbone,
    probes: Sequence[TrainingProbe],
    layer: int,
    made: Intervention | None,
    most: int,
) -> list[GenerationResult]:
    batch = backbone.prepare([PromptRow(probe.prompt, probe.image) for probe in probes])
    greedy = [Sampling(min(most, MAX_ANSWER_TOKENS))] * len(probes)
    return run(backbone, batch, greedy, Applied(batch, layer, made))


def _forced(
    backbone: Backbone,
    probes: Sequence[TrainingProbe],
    target: str,
    layer: int,
    made: Intervention,
) -> list[float]:
    ids = tuple(backbone.encode_target(target))
    batch = backbone.prepare([PromptRow(p.prompt, p.image, target_ids=ids) for p in probes])
    logits = backbone.forward(batch, taps=Applied(batch, layer, made).prefill_taps())
    shares = []
    for b, (row, pad) in enumerate(zip(batch.rows, batch.padding, strict=True)):
        first = pad + row.spans.last_prompt
        chosen = logits[b, first : first + len(ids)].argmax(-1).tolist()
        shares.append(fmean(float(a == b) for a, b in zip(chosen, ids, strict=True)))
    return shares


class Validation:
    """Validates at even shares of a run, and at its end. Called after every step (`trainer.Watch`).

    Args:
        times: how often in a run.
        cases: held-out edits asked each time, the same ones.
        locality: which questions that must be left alone are asked.
    """

    def __init__(
        self,
        editor: LiveEdit | VisEdit,
        backbone: Backbone,
        source: EditSource,
        folder: Path,
        *,
        times: int,
        cases: int,
        locality: Locality = "picture",
    ) -> None:
        self._editor = editor
        self._backbone = backbone
        self._source = source
        self._folder = folder
        self._times = times
        self._locality = locality
        self._numbers = range(min(cases, len(source)))
        self._lines: list[dict[str, Any]] | None = None
        self._done = 0

    def __call__(self, progress: Progress, share: float) -> None:
        """Validate, if this step completes one of the shares."""
        if self._lines is None:
            self._lines = self._kept(progress.step - 1)
            self._done = max((line["part"] for line in self._lines), default=0)
        part = self._times if share >= 1.0 else int(share * self._times)
        if part > self._done:
            self._done = part
            stored = _as_stored(self._editor)
            figures = validate(
                stored, self._backbone, self._source, self._numbers, locality=self._locality
            )
            self._note(progress, part, figures, stored)

    def _note(
        self,
        progress: Progress,
        part: int,
        figures: Mapping[str, float],
        stored: LiveEdit | VisEdit,
    ) -> None:
        assert self._lines is not None
        exact = [value for name, value in figures.items() if name.endswith("exact match")]
        line = {
            "step": progress.step,
            "part": part,
            "seconds": round(progress.seconds, 1),
            "edits": len(self._numbers),
            "mean exact match": fmean(exact),
            **figures,
        }
        best = max((earlier["mean exact match"] for earlier in self._lines), default=-1.0)
        self._lines.append(line)
        self._write()
        if line["mean exact match"] > best:
            best_so_far = self._folder / "best" / stored.name
            stored.save(
                best_so_far.with_suffix(".safetensors"),
                best_so_far.with_suffix(".json"),
                notes={"steps": progress.step, "validation": line},
            )

    def _kept(self, step: int) -> list[dict[str, Any]]:
        """The lines of an earlier part of this run: those after a resumed step are made again."""
        if not self._path.is_file():
            return []
        lines = [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]
        return [line for line in lines if line["step"] <= step]

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines or ())
        part.write_text(text, encoding="utf-8")
        part.replace(self._path)

    @property
    def _path(self) -> Path:
        return self._folder / "validation.jsonl"


def _as_stored(editor: LiveEdit | VisEdit) -> LiveEdit | VisEdit:
    """A copy with the weights that `save` would write; the one in training goes on unrounded."""
    stored = copy.copy(editor)
    stored.module = copy.deepcopy(editor.module).requires_grad_(False).eval()
    round_weights(stored.module)
    return stored
