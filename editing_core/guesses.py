"""Guesses of answers, checked in one pass: what a row would say greedily is read off, not written.

Whoever asks may know what the answer will probably be: an edit's target, or what was said before.
One teacher-forced pass over question and guess tells what greedy decoding would choose after each
token. Where that is the guess to its end, the answer is the guess; where it is not, the guess is
dropped and the row is answered as if there were none. So a guess changes how soon an answer comes,
and never which. (It is speculative decoding, Leviathan et al., ICML 2023, section 2, with the
caller as the draft, and all or nothing.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PreparedRow
from editing_core.batching.rows import Key
from editing_core.edited_pass import EditedPass
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow, Writer, are_finite
from editing_core.types import GenerationResult, RoutingDecision

EncodeTarget = Callable[[str], Sequence[int]]
MakePass = Callable[[PreparedBatch, Sequence[Snapshot | None]], EditedPass]


def confirmed(
    prepared: Sequence[PreparedRow],
    rows: Mapping[Key, GenerationRow],
    *,
    backbone: Backbone,
    encode_target: EncodeTarget,
    make_pass: MakePass,
) -> dict[Key, GenerationResult]:
    """The results of those rows whose guesses are right, in one pass; `prepared` are all rows.

    `encode_target` gives a guessed text's tokens, stop token included. Raises what routing raises.
    """
    guessed: dict[Key, PreparedRow] = {}
    for (key, row), each in zip(rows.items(), prepared, strict=True):
        if row.guess is None or row.sampling.temperature > 0.0:
            continue
        ids = row.guess if isinstance(row.guess, tuple) else tuple(encode_target(row.guess))
        if ids and len(each.ids) + len(ids) <= backbone.max_positions:
            guessed[key] = _followed_by(each, ids)
    if not guessed:
        return {}
    batch = backbone.collate(list(guessed.values()))
    edited = make_pass(batch, [rows[key].snapshot for key in guessed])
    states = backbone.last_states(batch, taps=edited.prefill_taps())
    found = {}
    for b, (key, asked) in enumerate(guessed.items()):
        first, (start, end) = asked.spans.last_prompt, asked.spans.target
        at = batch.padding[b] + first
        # The head reads the guess only: on a small model it is half of a pass.
        logits = backbone.logits(states[b, at : at + end - start])
        writer = Writer(rows[key].sampling, backbone=backbone, prompt_tokens=first + 1)
        result = _written(writer, logits, asked.ids[start:end], edited.decisions[b])
        if result is not None:
            found[key] = result
    return found


def _followed_by(row: PreparedRow, ids: Sequence[int]) -> PreparedRow:
    """The row with the guess as what it must answer."""
    end = len(row.ids)
    spans = replace(row.spans, target=(end, end + len(ids)))
    return replace(row, ids=(*row.ids, *ids), spans=spans)


def _written(
    writer: Writer, logits: Tensor, guess: Sequence[int], decision: RoutingDecision
) -> GenerationResult | None:
    """What is written from the logits `[guess, vocab]`; None if it is not the whole guess."""
    if not all(are_finite(logits)):
        return None
    for line, token in zip(logits, guess, strict=True):
        if writer.finish_reason is not None or writer.take(line)[0] != token:
            return None
    return None if writer.finish_reason is None else writer.result(decision)
