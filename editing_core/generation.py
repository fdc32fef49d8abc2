"""Continue a batch of rows to their ends, each with its own experts and its own sampling."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PromptRow
from editing_core.backbones.passes import Tap
from editing_core.choosing import Chooser
from editing_core.errors import GenerationCancelled, NotFinite
from editing_core.experts.memory import Snapshot
from editing_core.streaming import TextStream
from editing_core.types import (
    FinishReason,
    GenerationResult,
    ImageArray,
    RoutingDecision,
    Sampling,
    Turn,
)

OnTokens = Callable[[int, str], None]
IsCancelled = Callable[[], bool]


class ActsOnBatch(Protocol):
    """What changes a batch's hidden states on its way: an `EditedPass`, or another method's."""

    @property
    def decisions(self) -> Sequence[RoutingDecision]:
        """Each row's, complete once prefill ran."""
        ...

    def prefill_taps(self) -> Mapping[int, Tap] | None: ...

    def decode_taps(self, step: int) -> Mapping[int, Tap] | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRow:
    """One request: `snapshot` None asks the base model.

    Edits go by `prompt` and `image` alone. The model reads `turns` in their place, where there are
    any: a conversation whose last turn is the prompt. `ids` are a text that is continued as it
    stands, without any template, and never edited. `guess`, text or tokens, is what a greedy answer
    will probably be: it changes how soon that comes, never what it is (`guesses.py`).
    """

    prompt: str
    image: ImageArray | None
    sampling: Sampling = field(default_factory=Sampling)
    snapshot: Snapshot | None = None
    turns: tuple[Turn, ...] = ()
    ids: tuple[int, ...] = ()
    guess: str | tuple[int, ...] | None = None

    @property
    def as_prompt(self) -> PromptRow:
        """What the backbone is given."""
        return PromptRow(self.prompt, self.image, turns=self.turns, ids=self.ids)


class Writer:
    """One row's way to its end: picks tokens, knows when to stop, and gives out text."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        backbone: Backbone,
        prompt_tokens: int,
        cached_tokens: int = 0,
    ) -> None:
        self._stop_token_ids = backbone.stop_token_ids
        self._limit = min(sampling.max_new_tokens, backbone.max_positions - prompt_tokens)
        self._stream = TextStream(backbone.chat.decode_raw, sampling.stop)
        seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        grammar = sampling.grammar
        constraint = None if grammar is None else backbone.chat.grammar.constraint(grammar)
        self._chooser = Chooser(sampling, seed=seed % 2**63, constraint=constraint)
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = cached_tokens
        self._ids: list[int] = []
        self.finish_reason: FinishReason | None = "length" if self._limit < 1 else None

    def take(self, logits: Tensor) -> tuple[int, str]:
        """The next token, from float32 logits `[vocab]`, and the text that became certain."""
        token = self._chooser.choose(logits)
        return token, self._push(token)

    def _push(self, token: int) -> str:
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
            logprobs=tuple(self._chooser.logprobs),
            cached_tokens=self._cached_tokens,
        )


def run(
    backbone: Backbone,
    batch: PreparedBatch,
    samplings: Sequence[Sampling],
    edited: ActsOnBatch,
    *,
    on_tokens: OnTokens | None = None,
    is_cancelled: IsCancelled | None = None,
) -> list[GenerationResult]:
    """Generate all rows of `batch` to their ends, in its order.

    A row that is done stays in the batch: the others keep their shapes, and so their bits.
    Raises `GenerationCancelled` before the next pass through the model once `is_cancelled` says so,
    and `NotFinite` where a row's next token cannot be chosen: the model gave NaN or infinity.
    """
    writers = [
        Writer(sampling, backbone=backbone, prompt_tokens=len(row.ids))
        for row, sampling in zip(batch.rows, samplings, strict=True)
    ]
    raise_if(is_cancelled)
    logits, state = backbone.prefill(batch, taps=edited.prefill_taps())
    step = 1
    while True:
        running = [b for b, writer in enumerate(writers) if writer.finish_reason is None]
        refuse_not_finite(logits, running, edited.decisions)
        tokens = [backbone.pad_token_id] * len(writers)
        for b, writer in enumerate(writers):
            if writer.finish_reason is not None:
                continue
            tokens[b], delta = writer.take(logits[b])
            if delta and on_tokens is not None:
                on_tokens(b, delta)
        if all(writer.finish_reason is not None for writer in writers):
            break
        raise_if(is_cancelled)
        step += 1
        logits = backbone.decode(
            torch.tensor(tokens, device=backbone.device), state, taps=edited.decode_taps(step)
        )
    return [
        writer.result(decision) for writer, decision in zip(writers, edited.decisions, strict=True)
    ]


def refuse_not_finite(
    logits: Tensor, rows: Sequence[int], decisions: Sequence[RoutingDecision] = ()
) -> None:
    """Raise `NotFinite`, naming the edits that act, unless `rows` of `[batch, vocab]` have a best.

    A token that cannot be chosen may have minus infinity; NaN anywhere, or infinity, is no answer.
    """
    finite = are_finite(logits)
    for b in rows:
        if not finite[b]:
            raise not_finite(decisions[b] if decisions else RoutingDecision())


def are_finite(logits: Tensor) -> list[bool]:
    """Which rows of `[batch, vocab]` have a best token."""
    found: list[bool] = logits.amax(-1).isfinite().tolist()
    return found


def not_finite(decision: RoutingDecision) -> NotFinite:
    """The error of a row that has none, naming the edits that act on it."""
    acting = tuple(c.edit_id for c in decision.applied)
    with_edits = f" with the edits {', '.join(acting)}" if acting else ""
    return NotFinite(
        f"the model gave no numbers for this question{with_edits} (NaN or infinity)", edits=acting
    )


def raise_if(is_cancelled: IsCancelled | None) -> None:
    """Raise `GenerationCancelled` once `is_cancelled` says so."""
    if is_cancelled is not None and is_cancelled():
        raise GenerationCancelled("the generation was cancelled")
