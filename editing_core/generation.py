"""Prefill and decode for a batch of rows, each with its own experts and its own way to continue.

    prefill   base states reach the router's layer -> each row with survivors is routed, once
              -> its experts are fused -> their residual is added at the edit layer
    decode    the same fused experts are applied to each new token

A batch in which no edit passes the image filter runs without any hook; a row that selects nothing
keeps the base model's bits.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.base import Backbone, Tap
from editing_core.backbones.batch import PreparedBatch
from editing_core.errors import GenerationCancelled, StaleArtifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.intervention import Fused, FusesExperts, apply, fuse
from editing_core.states import RowStates
from editing_core.streaming import TextStream
from editing_core.types import (
    EditArtifact,
    FinishReason,
    GenerationResult,
    ImageArray,
    RoutingDecision,
    Sampling,
)

OnTokens = Callable[[int, str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRow:
    """One request: `snapshot` None asks the base model."""

    prompt: str
    image: ImageArray | None
    sampling: Sampling = field(default_factory=Sampling)
    snapshot: Snapshot | None = None


class Routes(Protocol):
    """What is needed of a router here."""

    @property
    def layer(self) -> int: ...

    def hard_filter(
        self, image_key: NDArray[np.float32], snapshot: Snapshot
    ) -> list[tuple[str, float]]: ...

    def route(
        self, query: RowStates, survivors: Sequence[tuple[str, float]], snapshot: Snapshot
    ) -> RoutingDecision: ...


class EditedPass:
    """Routing and experts of one batch, from prefill to its last token.

    `decisions[b]` is row b's, complete once prefill ran. `check` is called with the id and the
    artifact of each edit that is about to act and may refuse it.
    """

    def __init__(
        self,
        batch: PreparedBatch,
        snapshots: Sequence[Snapshot | None],
        *,
        router: Routes,
        editors: Mapping[str, FusesExperts],
        check: Callable[[str, EditArtifact], None],
    ) -> None:
        self._batch = batch
        self._snapshots = snapshots
        self._router = router
        self._editors = editors
        self._check = check
        self._fused: dict[int, Fused] = {}
        self.decisions = [RoutingDecision()] * len(batch.rows)
        self._survivors = {b: found for b in range(len(batch.rows)) if (found := self._filter(b))}

    def prefill_taps(self) -> dict[int, Tap] | None:
        """Taps that route and apply; None when no row can select anything."""
        if not self._survivors:
            return None
        layers = {self._router.layer}
        for b, survivors in self._survivors.items():
            entries = self._entries(b)
            layers.update(entries[edit_id].artifact.edit_layer for edit_id, _ in survivors)
        first_steps = {
            b: 1 - self._batch.padding[b] - self._batch.rows[b].spans.last_prompt
            for b in self._survivors
        }
        return {layer: self._tap(layer, first_steps, self._batch.padding) for layer in layers}

    def decode_taps(self, step: int) -> dict[int, Tap] | None:
        """Taps for one new token a row, whose step is `step` (2 for the first generated one)."""
        layers = {layer for fused in self._fused.values() for layer in fused}
        if not layers:
            return None
        no_padding = [0] * len(self._batch.rows)
        steps = dict.fromkeys(self._fused, step)
        return {layer: self._tap(layer, steps, no_padding) for layer in layers}

    def _tap(self, layer: int, first_steps: Mapping[int, int], padding: Sequence[int]) -> Tap:
        def tap(hidden: Tensor) -> Tensor | None:
            if layer == self._router.layer and self._survivors:
                self._route(hidden)
            rows = {b: fused[layer] for b, fused in self._fused.items() if layer in fused}
            if not rows:
                return None
            return apply(hidden, rows, first_steps=first_steps, padding=padding)

        return tap

    def _filter(self, b: int) -> list[tuple[str, float]]:
        row, snapshot = self._batch.rows[b], self._snapshots[b]
        start, stop = row.spans.prompt
        if snapshot is None or not len(snapshot) or row.features is None or start == stop:
            return []
        return self._router.hard_filter(row.features.key, snapshot)

    def _route(self, hidden: Tensor) -> None:
        """Decide for every row with survivors; then there is nothing left to decide."""
        for b, survivors in self._survivors.items():
            snapshot = self._snapshots[b]
            assert snapshot is not None
            states = RowStates(
                hidden=hidden[b, self._batch.padding[b] :].float(), spans=self._batch.rows[b].spans
            )
            decision = self._router.route(states, survivors, snapshot)
            self.decisions[b] = decision
            if decision.applied:
                self._fused[b] = self._fuse(b, decision)
        self._survivors = {}

    def _fuse(self, b: int, decision: RoutingDecision) -> Fused:
        entries = self._entries(b)
        selected = [(entries[c.edit_id].artifact, c.weight) for c in decision.applied]
        for candidate, (artifact, _) in zip(decision.applied, selected, strict=True):
            self._check(candidate.edit_id, artifact)
            if artifact.edit_layer < self._router.layer:
                raise StaleArtifact(
                    f"edit {candidate.edit_id} acts at layer {artifact.edit_layer}, "
                    f"below the router's layer {self._router.layer}"
                )
        return fuse(selected, self._editors)

    def _entries(self, b: int) -> Mapping[str, MemoryEntry]:
        snapshot = self._snapshots[b]
        return {} if snapshot is None else snapshot.entries


class _Writer:
    """One row's way to its end: picks tokens, knows when to stop, and gives out text."""

    def __init__(self, sampling: Sampling, *, backbone: Backbone, prompt_tokens: int) -> None:
        self._sampling = sampling
        self._stop_token_ids = backbone.stop_token_ids
        self._limit = min(sampling.max_new_tokens, backbone.max_positions - prompt_tokens)
        self._stream = TextStream(backbone.chat.decode_raw, sampling.stop)
        self._random = torch.Generator()
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._random.manual_seed(seed % 2**63)
        self._prompt_tokens = prompt_tokens
        self._ids: list[int] = []
        self.finish_reason: FinishReason | None = "length" if self._limit < 1 else None

    def choose(self, logits: Tensor) -> int:
        """The next token, from float32 logits `[vocab]`."""
        if self._sampling.temperature <= 0.0:
            return int(logits.argmax())
        return _sample(logits, self._sampling, self._random)

    def push(self, token: int) -> str:
        """Take one token; return the text that became certain."""
        self._ids.append(token)
        if token in self._stop_token_ids:
            self.finish_reason = "stop"
            return self._stream.finish(self._ids[:-1])
        delta = self._stream.push(self._ids)
        if self._stream.reached_stop:
            self.finish_reason = "stop"
        elif len(self._ids) >= self._limit:
            self.finish_reason = "length"
            delta += self._stream.finish(self._ids)
        return delta

    def result(self, decision: RoutingDecision) -> GenerationResult:
        """The finished row."""
        return GenerationResult(
            text=self._stream.text,
            token_ids=tuple(self._ids),
            finish_reason=self.finish_reason or "length",
            prompt_tokens=self._prompt_tokens,
            completion_tokens=len(self._ids),
            decision=decision,
        )


def run(
    backbone: Backbone,
    batch: PreparedBatch,
    samplings: Sequence[Sampling],
    edited: EditedPass,
    *,
    on_tokens: OnTokens | None = None,
    is_cancelled: IsCancelled | None = None,
) -> list[GenerationResult]:
    """Generate all rows of `batch` to their ends, in its order.

    A row that is done stays in the batch: the others keep their shapes, and so their bits.
    Raises `GenerationCancelled` before the next pass through the model once `is_cancelled` says so.
    """
    writers = [
        _Writer(sampling, backbone=backbone, prompt_tokens=len(row.ids))
        for row, sampling in zip(batch.rows, samplings, strict=True)
    ]
    _raise_if(is_cancelled)
    logits, state = backbone.prefill(batch, taps=edited.prefill_taps())
    step = 1
    while True:
        tokens = [backbone.pad_token_id] * len(writers)
        for b, writer in enumerate(writers):
            if writer.finish_reason is not None:
                continue
            tokens[b] = writer.choose(logits[b])
            delta = writer.push(tokens[b])
            if delta and on_tokens is not None:
                on_tokens(b, delta)
        if all(writer.finish_reason is not None for writer in writers):
            break
        _raise_if(is_cancelled)
        step += 1
        logits = backbone.decode(
            torch.tensor(tokens, device=backbone.device), state, taps=edited.decode_taps(step)
        )
    return [
        writer.result(decision)
        for writer, decision in zip(writers, edited.decisions, strict=True)
    ]


def _raise_if(is_cancelled: IsCancelled | None) -> None:
    if is_cancelled is not None and is_cancelled():
        raise GenerationCancelled("the generation was cancelled")


def _sample(logits: Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """Draw from the smallest set of tokens that holds `top_p` of the probability."""
    # On the CPU and in float64, so that a seed means the same on every device.
    scaled = logits.double().cpu()
    probabilities = ((scaled - scaled.max()) / sampling.temperature).softmax(-1)
    ordered, tokens = probabilities.sort(descending=True, stable=True)
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0.0
    return int(tokens[torch.multinomial(ordered, 1, generator=random)])
