"""One batch's way through the model with edits: route once, fuse once, apply at every step.

    before    rows whose picture finds edits have their question compared with the edits' wordings;
              those that may be meant have their pictures laid beside the row's own; where one is
              left, the words are read without the picture
    prefill   base states reach the router's layer -> each row with survivors is routed, once
              -> its experts are fused -> their residual is added at the edit layer
    decode    the same fused experts are applied to each new token

A batch in which no edit passes the image filter, or none is meant, runs without any hook; a row
that selects nothing keeps the base model's bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.batch import PreparedBatch, PreparedRow
from editing_core.backbones.passes import Tap
from editing_core.decode_taps import DecodeTaps
from editing_core.errors import StaleArtifact
from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.intervention import Fused, FusesExperts, apply, fuse
from editing_core.routing.base import Query
from editing_core.routing.wordings import TextMatch
from editing_core.states import Intervention, RoutingStates
from editing_core.types import EditArtifact, RoutingDecision


class Routes(Protocol):
    """What is needed of a router here."""

    @property
    def layer(self) -> int: ...

    def hard_filter(
        self, image_key: NDArray[np.float32], snapshot: Snapshot
    ) -> list[tuple[str, float]]: ...

    def route_each(self, queries: Sequence[Query]) -> list[RoutingDecision]: ...

    def refuse(
        self,
        survivors: Sequence[tuple[str, float]],
        match: TextMatch,
        *,
        another: Tensor | None = None,
    ) -> RoutingDecision | None: ...


ReadStates = Callable[[Sequence[PreparedRow], int], Sequence[Tensor]]
"""`Backbone.word_states`, `Backbone.picture_states`."""

CompareTexts = Callable[[Sequence[tuple[str, Sequence[MemoryEntry]]]], Sequence[TextMatch]]
"""How each question fits the wordings of some edits: `routing.wordings.Comparer`."""

Sketch = NDArray[np.int8]
JudgePictures = Callable[[Sketch, Sequence[Sketch]], Sequence[bool]]
"""Whether a picture is the same as each of some others, by their sketches: `Eyes.same`."""


class EditedPass:
    """Routing and experts of one batch, from prefill to its last token.

    `decisions[b]` is row b's and `fused[b]` its experts, if any acts, complete once prefill ran;
    `running` holds them ready for decoding.
    `compare` (None: the router's own textual keys decide), `judge` (None: image keys alone tell
    pictures apart) and `read_words` run at once, for rows whose picture finds anything; so does
    `read_pictures`, for those of conversations: they are routed as if asked alone. With
    `read_kept`, which knows the pictures of all other rows, all is decided at once; without it,
    when prefill has come to the router's layer. `check` is called with the id and the artifact of
    each edit that is about to act and may refuse it. Without `names_all`, decisions name no edit
    whose words do not fit: among a thousand look-alikes most of the routing is about those.
    """

    def __init__(
        self,
        batch: PreparedBatch,
        snapshots: Sequence[Snapshot | None],
        *,
        router: Routes,
        read_words: ReadStates,
        read_pictures: ReadStates,
        read_kept: ReadStates | None = None,
        compare: CompareTexts | None = None,
        judge: JudgePictures | None = None,
        editors: Mapping[str, FusesExperts],
        check: Callable[[str, EditArtifact], None],
        names_all: bool = True,
    ) -> None:
        self._batch = batch
        self._snapshots = snapshots
        self._router = router
        self._editors = editors
        self._check = check
        self._names_all = names_all
        self.fused: dict[int, Fused] = {}
        self.running = DecodeTaps(device=batch.input_ids.device)
        self.decisions = [RoutingDecision()] * len(batch.rows)
        self._found: dict[tuple[int, int], list[tuple[str, float]]] = {}
        self._survivors = {b: found for b in range(len(batch.rows)) if (found := self._filter(b))}
        self._matches: dict[int, TextMatch] = {}
        self._another: dict[int, Tensor] = {}
        if compare is not None:
            self._compare(compare)
        if judge is not None:
            self._judge(judge)
        self._words: dict[int, Tensor] = {}
        if self._survivors:
            asked = [batch.rows[b] for b in self._survivors]
            self._words = dict(zip(self._survivors, read_words(asked, router.layer), strict=True))
        alone = {b: row for b in self._survivors if (row := batch.rows[b].alone) is not None}
        seen = read_pictures(list(alone.values()), router.layer)
        self._pictures = dict(zip(alone, seen, strict=True))
        self.pictures_read: dict[int, Tensor] = {}
        """Picture states that prefill brought by."""
        if read_kept is not None:
            others = [b for b in self._survivors if b not in alone]
            kept = read_kept([batch.rows[b] for b in others], router.layer)
            self._pictures.update(zip(others, kept, strict=True))
            self._route(None)

    def prefill_taps(self) -> dict[int, Tap] | None:
        """Taps that route and apply; None when no row can select anything."""
        layers = {layer for by_layer in self.fused.values() for layer in by_layer}
        if self._survivors:
            layers.add(self._router.layer)
        if not layers:
            return None
        for b, survivors in self._survivors.items():
            entries = self._entries(b)
            layers.update(entries[edit_id].artifact.edit_layer for edit_id, _ in survivors)
        first_steps = {
            b: 1 - self._batch.padding[b] - self._batch.rows[b].spans.last_prompt
            for b in (*self._survivors, *self.fused)
        }
        return {layer: self._tap(layer, first_steps) for layer in layers}

    def decode_taps(self, step: int) -> dict[int, Tap] | None:
        """Taps for one new token a row, whose step is `step` (2 for the first generated one)."""
        return self.running.at([step] * len(self._batch.rows))

    def _tap(self, layer: int, first_steps: Mapping[int, int]) -> Tap:
        def tap(hidden: Tensor) -> Tensor | None:
            if layer == self._router.layer and self._survivors:
                self._route(hidden)
            rows = {b: fused[layer] for b, fused in self.fused.items() if layer in fused}
            if not rows:
                return None
            if self._acts_on_last_column(rows):
                steps = self._batch.input_ids.new_ones(len(hidden))
                # In place: a block's output is nobody else's, and a copy is as long as the prompt.
                hidden[:, -1] = self.running.added(layer, hidden[:, -1], steps)
                return hidden
            return apply(
                hidden,
                rows,
                first_steps=first_steps,
                padding=self._batch.padding,
                pictures=self._batch.pictures,
            )

        return tap

    def acts_early(self, b: int) -> bool:
        """Whether row b's experts change anything before its last prompt token."""
        return any(
            each.positions != "from_last_prompt_token"
            for interventions in self.fused.get(b, {}).values()
            for each in interventions
        )

    def _acts_on_last_column(self, acting: Mapping[int, Sequence[Intervention]]) -> bool:
        """Whether these change the last prompt token alone, and nothing comes after it."""
        return all(
            each.positions == "from_last_prompt_token"
            and self._batch.rows[b].spans.last_prompt == len(self._batch.rows[b].ids) - 1
            for b, interventions in acting.items()
            for each in interventions
        )

    def _filter(self, b: int) -> list[tuple[str, float]]:
        row, snapshot = self._batch.rows[b], self._snapshots[b]
        start, stop = row.spans.prompt
        if snapshot is None or not len(snapshot) or row.features is None or start == stop:
            return []
        # Rows of one picture share its features; among many look-alikes a search is not free.
        asked = id(row.features), id(snapshot)
        if asked not in self._found:
            self._found[asked] = self._router.hard_filter(row.features.key, snapshot)
        return self._found[asked]

    def _compare(self, compare: CompareTexts) -> None:
        """By text alone: rows that mean none of their survivors are decided here and now."""
        pairs = []
        for b, survivors in self._survivors.items():
            entries = self._entries(b)
            pairs.append((self._batch.rows[b].prompt, [entries[i] for i, _ in survivors]))
        found_each = compare(pairs) if pairs else ()
        for (b, survivors), found in zip(list(self._survivors.items()), found_each, strict=True):
            decision = self._router.refuse(survivors, found)
            if decision is None and self._names_all:
                self._matches[b] = found
            elif decision is None:
                kept = found.passes.nonzero().flatten().tolist()
                self._survivors[b] = [survivors[i] for i in kept]
                self._matches[b] = found.of(kept)
            else:
                self.decisions[b] = decision
                del self._survivors[b]

    def _judge(self, judge: JudgePictures) -> None:
        """Of edits that may be meant, those whose picture is another one.

        A row that is left without any is decided here and now.
        """
        for b, survivors in list(self._survivors.items()):
            features, entries = self._batch.rows[b].features, self._entries(b)
            assert features is not None
            match = self._matches.get(b)
            asked = [i for i in range(len(survivors)) if match is None or bool(match.passes[i])]
            sketches = [entries[survivors[i][0]].artifact.key.sketch for i in asked]
            same = judge(features.sketch, sketches)
            if all(same):
                continue
            another = torch.zeros(len(survivors), dtype=torch.bool)
            another[asked] = ~torch.tensor(same, dtype=torch.bool)
            self._another[b] = another
            if match is None:
                continue
            decision = self._router.refuse(survivors, match, another=another)
            if decision is not None:
                self.decisions[b] = decision
                del self._survivors[b]

    @property
    def is_decided(self) -> bool:
        """Whether no row's decision waits for states of the model."""
        return not self._survivors

    def decide(self, hidden: Tensor | None) -> None:
        """Decide for every row that is not decided, from the router's layer `[batch, T, hidden]`.

        None, where the pictures of all of them are known. Nothing is fused: for whoever wants the
        decisions alone.
        """
        columns = self._batch.pictures
        queries: dict[int, Query] = {}
        for b, survivors in self._survivors.items():
            snapshot = self._snapshots[b]
            assert snapshot is not None
            seen = self._pictures.get(b)
            if seen is None:
                assert hidden is not None
                seen = self.pictures_read[b] = hidden[b, columns[b]].float()
            states = RoutingStates(image=seen, words=self._words[b])
            match, another = self._matches.get(b), self._another.get(b)
            queries[b] = Query(states, survivors, snapshot, match, another)
        decisions = self._router.route_each(list(queries.values()))
        for b, decision in zip(queries, decisions, strict=True):
            self.decisions[b] = decision
        self._survivors = {}

    def _route(self, hidden: Tensor | None) -> None:
        """Decide, and fuse what was selected; then there is nothing left to decide."""
        waiting = list(self._survivors)
        self.decide(hidden)
        for b in waiting:
            if self.decisions[b].applied:
                self.fused[b] = self._fuse(b, self.decisions[b])
                self.running.add(b, self.fused[b])

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
