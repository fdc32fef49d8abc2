from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from editing_core.intervention import apply, fuse
from editing_core.states import Intervention, Norm
from editing_core.types import EditArtifact, Positions
from tests.support.edits import artifact, unit_vector


class AddsSteps:
    """Adds each row's step to it; notes what it was asked."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self.seen: list[tuple[Tensor, Tensor]] = []

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        self.seen.append((states, steps))
        return steps[:, None].float().expand_as(states)


class Fuses:
    def __init__(self, **norms: Norm) -> None:
        self.norms = norms
        self.calls: list[list[tuple[EditArtifact, float]]] = []
        self.given: list[set[str]] = []

    def intervention(
        self, experts: Sequence[tuple[EditArtifact, float]], *, norms: Mapping[str, Norm]
    ) -> Intervention:
        self.calls.append(list(experts))
        self.given.append(set(norms))
        return AddsSteps("all")


HIDDEN = torch.arange(2 * 5 * 3, dtype=torch.float32).reshape(2, 5, 3)


def test_only_the_given_row_changes_and_only_from_the_last_prompt_token_on() -> None:
    before = HIDDEN.clone()
    aligned = AddsSteps("from_last_prompt_token")
    changed = apply(HIDDEN, {1: [aligned]}, first_steps={1: -2}, padding=[0, 1], pictures={})
    assert torch.equal(HIDDEN, before)
    assert torch.equal(changed[0], HIDDEN[0])
    assert torch.equal(changed[1, :3], HIDDEN[1, :3])
    assert torch.equal(changed[1, 3:] - HIDDEN[1, 3:], torch.tensor([[1.0] * 3, [2.0] * 3]))


def test_a_free_expert_sees_every_token_but_no_padding() -> None:
    free = AddsSteps("all")
    changed = apply(HIDDEN, {0: [free]}, first_steps={0: -4}, padding=[2, 0], pictures={})
    states, steps = free.seen[0]
    assert torch.equal(states, HIDDEN[0, 2:])
    assert steps.tolist() == [-2, -1, 0]
    assert torch.equal(changed[0, :2], HIDDEN[0, :2])


def test_every_expert_reads_the_base_states() -> None:
    first, second = AddsSteps("all"), AddsSteps("from_last_prompt_token")
    changed = apply(
        HIDDEN[:, :1], {0: [first, second]}, first_steps={0: 7}, padding=[0, 0], pictures={}
    )
    assert torch.equal(first.seen[0][0], second.seen[0][0])
    assert torch.equal(changed[0] - HIDDEN[0, :1], torch.full((1, 3), 14.0))


def test_a_row_that_ends_before_the_last_prompt_token_is_left_alone() -> None:
    aligned = AddsSteps("from_last_prompt_token")
    changed = apply(HIDDEN, {0: [aligned]}, first_steps={0: -9}, padding=[0, 0], pictures={})
    assert torch.equal(changed, HIDDEN)
    assert aligned.seen == []


def make(editor: str, *, layer: int = 1, kind: str = "aligned") -> EditArtifact:
    made = artifact(unit_vector(0))
    return EditArtifact(
        **{name: getattr(made, name) for name in ("positions", "payload", "key")},
        editor=editor,
        edit_layer=layer,
        backbone_fingerprint="b",
        editor_fingerprint="e",
        router_fingerprint="r",
        metadata={"kind": kind},
    )


def test_aligned_experts_share_one_softmax_whoever_made_them() -> None:
    first, second = Fuses(), Fuses(whitened=lambda states, steps: states)
    experts = [(make("first"), 0.5), (make("second"), 0.3)]
    fused = fuse(experts, {"first": first, "second": second})
    assert list(fused) == [1]
    assert len(fused[1]) == 1
    assert [weight for _, weight in first.calls[0]] == [0.5, 0.3]
    assert second.calls == []
    # Whoever fuses them is told how the others' experts read.
    assert first.given == [{"whitened"}]


def test_free_experts_are_fused_by_their_own_editor_and_layers_stay_apart() -> None:
    first, second = Fuses(), Fuses()
    experts = [
        (make("first", kind="free"), 0.4),
        (make("second", kind="free"), 0.3),
        (make("first", layer=2), 0.3),
    ]
    fused = fuse(experts, {"first": first, "second": second})
    assert {layer: len(found) for layer, found in fused.items()} == {1: 2, 2: 1}
    assert [len(call) for call in first.calls] == [1, 1]
    assert len(second.calls[0]) == 1


def test_an_editor_that_is_not_loaded_is_an_error() -> None:
    with pytest.raises(KeyError):
        fuse([(make("gone"), 1.0)], {})
