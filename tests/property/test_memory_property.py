"""A snapshot is a function of which edits are active: however they came, searches agree."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from editing_core.experts.memory import MemoryEntry, Snapshot
from editing_core.index.base import canonical_scores
from tests.support.edits import entry, unit_vector

DIM = 4
QUERY = unit_vector(1000, DIM)


class Memory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.snapshot = Snapshot.empty(DIM)
        self.active: dict[str, MemoryEntry] = {}
        self.inactive: dict[str, MemoryEntry] = {}
        self.made = 0
        self.pinned: list[tuple[Snapshot, list[tuple[str, float]]]] = []

    def evolve(self, activate: list[MemoryEntry], deactivate: list[str]) -> None:
        self.snapshot = self.snapshot.evolve(
            self.snapshot.version + 1, activate=activate, deactivate=deactivate
        )

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        # Few directions, so that equal keys are common.
        fresh = [
            entry(f"e{self.made + i:04}", unit_vector((self.made + i) % 7, DIM))
            for i in range(count)
        ]
        self.made += count
        self.evolve(fresh, [])
        self.active.update({made.edit_id: made for made in fresh})

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        edit_id = data.draw(st.sampled_from(sorted(self.active)))
        self.evolve([], [edit_id])
        self.inactive[edit_id] = self.active.pop(edit_id)

    @precondition(lambda self: self.inactive)
    @rule(data=st.data(), anew=st.booleans())
    def reinstate(self, data: st.DataObject, anew: bool) -> None:
        edit_id = data.draw(st.sampled_from(sorted(self.inactive)))
        made = self.inactive.pop(edit_id)
        if anew:
            made = entry(edit_id, -made.artifact.key.image)
        self.evolve([made], [])
        self.active[edit_id] = made

    @rule()
    def pin(self) -> None:
        self.pinned.append((self.snapshot, self.snapshot.image_candidates(QUERY, 0.2)))

    @rule()
    def restart(self) -> None:
        """Fold the same active edits at once, as a server does when it starts."""
        version = self.snapshot.version + 1
        self.snapshot = Snapshot.empty(DIM).evolve(version, activate=list(self.active.values()))

    @invariant()
    def finds_exactly_the_active_edits_within_the_threshold(self) -> None:
        expected = []
        for edit_id, made in self.active.items():
            score = float(canonical_scores(made.artifact.key.image[None], QUERY)[0])
            if score >= 0.2:
                expected.append((edit_id, score))
        expected.sort(key=lambda pair: (-pair[1], pair[0]))
        assert self.snapshot.image_candidates(QUERY, 0.2) == expected
        assert set(self.snapshot.entries) == set(self.active)
        assert self.snapshot.num_segments <= int(np.log2(max(1, 2 * len(self.active)))) + 1

    @invariant()
    def pinned_snapshots_never_change(self) -> None:
        for snapshot, found in self.pinned[-3:]:
            assert snapshot.image_candidates(QUERY, 0.2) == found


Memory.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestMemory = Memory.TestCase
