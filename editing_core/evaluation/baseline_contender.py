"""Any baseline as a contender of the benchmark: it answers with its edits in force."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import torch

from editing_core.backbones.batch import PromptRow
from editing_core.editable_model import EditableModel
from editing_core.editors.baselines.base import Baseline
from editing_core.errors import ContextTooLong, NotFinite
from editing_core.evaluation.contender import MAX_ANSWER_TOKENS, Contender, Query, Reply
from editing_core.generation import run
from editing_core.registry import BASELINES
from editing_core.types import EditRequest, GenerationResult, RoutingDecision, Sampling

_ROWS_AT_ONCE = 32
_NO_ANSWER = GenerationResult("", (), "length", 0, 0, RoutingDecision())
T = TypeVar("T")


class BaselineContender(Contender):
    """A baseline that edits a model of its own. The model's parts are read, never changed."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.name = baseline.name
        self._seconds: list[float] = []

    @classmethod
    def named(cls, name: str, model: EditableModel, *, seed: int = 0) -> BaselineContender:
        """A registered baseline with its tuned settings. Raises `LookupError` on another name."""
        made: Baseline = BASELINES.resolve(name)(model.backbone, model.router, seed=seed)
        return cls(made)

    def reset(self) -> None:
        """Back to the unedited model."""
        self.baseline.reset()
        self._seconds = []

    def edit(self, request: EditRequest) -> bool:
        """Make one edit; refused where the method needs more context than the model has."""
        start = time.perf_counter()
        try:
            self.baseline.edit(request)
        except ContextTooLong:
            return False
        self._seconds.append(time.perf_counter() - start)
        return True

    @torch.no_grad()
    def answer(self, queries: Sequence[Query]) -> list[Reply]:
        """Free greedy answers; see `Contender.answer`."""
        replies: list[Reply] = []
        backbone, sampling = self.baseline.backbone, Sampling(max_new_tokens=MAX_ANSWER_TOKENS)
        for chunk in _chunks(queries):
            start = time.perf_counter()
            with self.baseline.in_force():
                batch, acting = self.baseline.begin([PromptRow(q.prompt, q.image) for q in chunk])
                try:
                    results = run(backbone, batch, [sampling] * len(chunk), acting)
                except NotFinite:  # the method broke the model: that is its answer
                    results = [_NO_ANSWER] * len(chunk)
            each = (time.perf_counter() - start) * 1e3 / len(chunk)
            replies.extend(
                Reply(
                    text=result.text,
                    stopped=result.finish_reason == "stop",
                    fired=acting.fired[b],
                    survivors=acting.survivors[b],
                    milliseconds=each,
                )
                for b, result in enumerate(results)
            )
        return replies

    @torch.no_grad()
    def token_accuracy(self, queries: Sequence[Query], targets: Sequence[str]) -> list[float]:
        """Teacher-forced; see `Contender.token_accuracy`."""
        backbone = self.baseline.backbone
        ids = [tuple(backbone.encode_target(target)) for target in targets]
        shares: list[float] = []
        for chunk in _chunks(list(zip(queries, ids, strict=True))):
            rows = [PromptRow(q.prompt, q.image, target_ids=answer) for q, answer in chunk]
            with self.baseline.in_force():
                batch, acting = self.baseline.begin(rows)
                logits = backbone.forward(batch, taps=acting.prefill_taps())
            for b, (_, answer) in enumerate(chunk):
                first = batch.padding[b] + batch.rows[b].spans.last_prompt
                chosen = logits[b, first : first + len(answer)].argmax(-1).tolist()
                shares.append(fmean([float(a == b) for a, b in zip(chosen, answer, strict=True)]))
        return shares

    def diagnostics(self) -> Mapping[str, float]:
        """Mean milliseconds an edit took."""
        return {"edit_ms": fmean(self._seconds) * 1e3} if self._seconds else {}


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _ROWS_AT_ONCE):
        yield items[start : start + _ROWS_AT_ONCE]
