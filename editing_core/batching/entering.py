"""How rows enter: prefilled together, each picture once where several rows begin with it.

    no beginning is kept      whole rows in one pass; what they begin with is kept
    one is kept, or another   what comes after it, in one pass for all such rows
    row has just made it

Edited rows are routed before such a pass, by the kept states of their picture, so that it is known
whether their experts leave the beginning alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.backbones.batch import PreparedBatch, PreparedRow
from editing_core.backbones.passes import DecodeState
from editing_core.batching.batch import DecodeBatch
from editing_core.batching.beginnings import (
    Beginning,
    Beginnings,
    cache_of,
    columns_before,
    name_of,
)
from editing_core.batching.rows import Key, RunningRow
from editing_core.edited_pass import EditedPass, ReadStates
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow, Writer

MakePass = Callable[[PreparedBatch, Sequence[Snapshot | None], ReadStates | None], EditedPass]
"""`EditableModel.edited_pass`."""


@dataclass(frozen=True, slots=True, eq=False)
class Entering(Generic[Key]):
    """A row before its prefill."""

    key: Key
    prepared: PreparedRow
    row: GenerationRow


class Entrance:
    """Prefills rows of one backbone; without `beginnings` every row whole, in one pass."""

    def __init__(
        self, backbone: Backbone, make_pass: MakePass, beginnings: Beginnings | None = None
    ) -> None:
        self._backbone = backbone
        self._make_pass = make_pass
        self._beginnings = beginnings

    @torch.no_grad()
    def enter(self, rows: Sequence[Entering[Key]]) -> DecodeBatch[Key]:
        """Prefill at least one row. Raises what routing raises."""
        known = self._beginnings
        if known is None:
            return self._whole(rows)
        first, others, names = list[Entering[Key]](), list[Entering[Key]](), set[Hashable]()
        for each in rows:
            name = name_of(each.prepared)
            waits = name in names or known.of(each.prepared) is not None
            (others if waits else first).append(each)
            if name is not None:
                names.add(name)
        begun = [self._whole(first)] if first else []
        begun += self._after(others, known) if others else []
        for another in begun[1:]:
            begun[0].take_in(another)
        return begun[0]

    def _whole(self, rows: Sequence[Entering[Key]]) -> DecodeBatch[Key]:
        batch = self._backbone.collate([each.prepared for each in rows])
        edited = self._make_pass(batch, [each.row.snapshot for each in rows], None)
        logits, state = self._backbone.prefill(batch, taps=edited.prefill_taps())
        if self._beginnings is not None:
            for b in range(len(rows)):
                if not edited.acts_early(b):
                    self._beginnings.keep(batch, b, state, edited.pictures_read.get(b))
        return self._decoding(rows, batch, edited, logits, state)

    def _after(self, rows: Sequence[Entering[Key]], known: Beginnings) -> list[DecodeBatch[Key]]:
        """In one pass those whose beginning is kept, in another those that must be run whole."""
        short: list[tuple[Entering[Key], Beginning]] = []
        whole: list[Entering[Key]] = []
        for each in rows:
            found = known.of(each.prepared)
            if found is None:
                whole.append(each)
            else:
                short.append((each, found))
        begun = []
        while short:
            kept = [found for _, found in short]
            batch = self._backbone.collate([each.prepared for each, _ in short])
            snapshots = [each.row.snapshot for each, _ in short]
            edited = self._make_pass(batch, snapshots, self._reader(batch, kept, known))
            early = {b for b in range(len(short)) if edited.acts_early(b)}
            if not early:
                columns = columns_before(batch, kept)
                cache = cache_of(self._backbone, batch, kept, columns)
                logits, state = self._backbone.prefill(
                    batch, taps=edited.prefill_taps(), after=cache
                )
                entered = [each for each, _ in short]
                begun.append(self._decoding(entered, batch, edited, logits, state, columns=columns))
                break
            whole += [short[b][0] for b in early]
            short = [pair for b, pair in enumerate(short) if b not in early]
        return [*begun, self._whole(whole)] if whole else begun

    def _reader(
        self, batch: PreparedBatch, found: Sequence[Beginning], known: Beginnings
    ) -> ReadStates:
        """What the router reads of pictures: kept with their beginnings, or read once now."""
        kept = {id(row): each for row, each in zip(batch.rows, found, strict=True)}

        def read(rows: Sequence[PreparedRow], layer: int) -> list[Tensor]:
            states = []
            for row in rows:
                beginning = kept[id(row)]
                picture = beginning.picture
                if picture is None:
                    (picture,) = self._backbone.picture_states([row], layer)
                    known.see(row, beginning, picture)
                states.append(picture)
            return states

        return read

    def _decoding(
        self,
        rows: Sequence[Entering[Key]],
        batch: PreparedBatch,
        edited: EditedPass,
        logits: Tensor,
        state: DecodeState,
        *,
        columns: int = 0,
    ) -> DecodeBatch[Key]:
        """`columns` of the batch were not run."""
        running = [
            RunningRow(
                each.key,
                Writer(
                    each.row.sampling,
                    backbone=self._backbone,
                    prompt_tokens=len(each.prepared.ids),
                    cached_tokens=max(0, columns - padding),
                ),
                decision,
            )
            for each, padding, decision in zip(rows, batch.padding, edited.decisions, strict=True)
        ]
        return DecodeBatch(self._backbone, running, logits, state, edited.running)
