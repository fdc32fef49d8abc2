"""Answer-aligned slots: one softmax over all experts, and nothing before the last prompt token."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from editing_core.experts.slots import AlignedIntervention, SlotExpert, standardise

HIDDEN = 8


def expert(seed: int, *, slots: int = 3, gamma: float = 2.0) -> SlotExpert:
    random = torch.Generator().manual_seed(seed)
    return SlotExpert(
        down=torch.randn(slots, HIDDEN, generator=random),
        up=torch.randn(slots, HIDDEN, generator=random),
        bias=torch.randn(slots, generator=random),
        gamma=torch.tensor(gamma),
    )


def states(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(99))


def test_the_residual_is_the_formula_written_out() -> None:
    first, second = expert(1, slots=2), expert(2, slots=3, gamma=0.5)
    hidden = states(1)

    residual = AlignedIntervention([(first, 0.7), (second, 0.3)]).residual(
        hidden, torch.tensor([2])
    )

    normed = standardise(hidden)[0]
    logits, ups = [0.0], [torch.zeros(HIDDEN)]
    for chosen, weight in ((first, 0.7), (second, 0.3)):
        for i in range(len(chosen.down)):
            distance = abs(i + 1 - 2)
            logits.append(
                float(normed @ chosen.down[i] + chosen.bias[i])
                - float(chosen.gamma) * distance
                + math.log(weight)
            )
            ups.append(chosen.up[i])
    attention = torch.tensor(logits).softmax(0)
    expected = sum(a * up for a, up in zip(attention, ups, strict=True))
    torch.testing.assert_close(residual[0], expected)


def test_a_lower_null_slot_lets_experts_act_on_rows_they_do_not_know() -> None:
    """And how they compete with each other stays as it was."""
    deaf = [replace(expert(seed), bias=torch.full((3,), -20.0)) for seed in (1, 2)]
    acting = [replace(e, null=-60.0) for e in deaf]
    steps = torch.tensor([1, 2, 3, 4])

    silent, heard, mixed = (
        AlignedIntervention([(first, 0.7), (second, 0.3)]).residual(states(), steps)
        for first, second in (deaf, acting, (deaf[0], acting[1]))
    )

    loud = [replace(e, bias=e.bias + 60.0) for e in deaf]
    expected = AlignedIntervention([(loud[0], 0.7), (loud[1], 0.3)]).residual(states(), steps)
    assert float(silent.abs().max()) < 1e-3
    torch.testing.assert_close(heard, expected)
    torch.testing.assert_close(mixed, expected)


def test_where_the_null_slot_lies_is_stored_and_none_said_is_zero() -> None:
    lowered = replace(expert(1), null=-42.0)

    assert SlotExpert.from_payload(lowered.payload(), lowered.metadata()).null == -42.0
    assert "null" not in expert(1).metadata()
    assert SlotExpert.from_payload(expert(1).payload(), {"norm": "standard"}).null == 0.0


@pytest.mark.parametrize("null", ["3", "-inf", "nan", "none"])
def test_a_null_slot_that_no_expert_has_is_refused(null: str) -> None:
    with pytest.raises(ValueError, match=r"null|could not convert"):
        SlotExpert.from_payload(expert(1).payload(), {"null": null})


def test_rows_before_the_last_prompt_token_get_exactly_nothing() -> None:
    residual = AlignedIntervention([(expert(1), 1.0)]).residual(
        states(), torch.tensor([-1, 0, 1, 2])
    )

    assert torch.equal(residual[:2], torch.zeros(2, HIDDEN))
    assert bool((residual[2:] != 0).any())


def test_two_equal_halves_are_one_whole() -> None:
    """What a softmax per expert gets wrong: equal survivors must not weaken each other."""
    steps = torch.tensor([1, 2, 3, 4])
    whole = AlignedIntervention([(expert(1), 1.0)]).residual(states(), steps)
    halves = AlignedIntervention([(expert(1), 0.5), (expert(1), 0.5)]).residual(states(), steps)

    torch.testing.assert_close(halves, whole)


def test_experts_are_a_set() -> None:
    pairs = [(expert(1), 0.6), (expert(2), 0.3), (expert(3), 0.1)]
    steps = torch.tensor([1, 2, 3, 4])

    forwards = AlignedIntervention(pairs).residual(states(), steps)
    backwards = AlignedIntervention(pairs[::-1]).residual(states(), steps)

    torch.testing.assert_close(forwards, backwards)


def test_an_expert_of_no_weight_is_left_out() -> None:
    steps = torch.tensor([1, 2, 3, 4])
    alone = AlignedIntervention([(expert(1), 1.0)]).residual(states(), steps)
    beside = AlignedIntervention([(expert(1), 1.0), (expert(2), 0.0)]).residual(states(), steps)

    assert torch.equal(alone, beside)
    with pytest.raises(ValueError, match="positive weight"):
        AlignedIntervention([(expert(1), 0.0)])


def test_experts_read_with_other_norms_share_the_softmax() -> None:
    doubled = replace(expert(1), norm="doubled")
    norms = {"doubled": lambda h, steps: 2.0 * standardise(h)}
    halved = replace(expert(1), down=2.0 * expert(1).down)
    steps = torch.tensor([1, 2, 3, 4])

    mixed = AlignedIntervention([(expert(2), 0.5), (doubled, 0.5)], norms=norms)
    plain = AlignedIntervention([(expert(2), 0.5), (halved, 0.5)])

    torch.testing.assert_close(mixed.residual(states(), steps), plain.residual(states(), steps))
    with pytest.raises(ValueError, match="doubled"):
        AlignedIntervention([(doubled, 1.0)])


def test_a_payload_is_half_precision_and_reads_back_as_stored() -> None:
    payload = expert(1).payload()
    metadata = expert(1).metadata()

    again = SlotExpert.from_payload(payload, metadata)

    assert {tensor.dtype for tensor in payload.values()} == {torch.float16}
    assert metadata["kind"] == "aligned"
    for name, tensor in again.payload().items():
        assert torch.equal(tensor, payload[name])


@pytest.mark.parametrize("missing", ["down", "up", "bias", "gamma"])
def test_a_payload_without_a_part_is_refused(missing: str) -> None:
    payload = expert(1).payload()
    del payload[missing]

    with pytest.raises(ValueError, match=missing):
        SlotExpert.from_payload(payload, {})


def test_a_payload_whose_parts_do_not_fit_is_refused() -> None:
    payload = expert(1).payload() | {"bias": torch.zeros(7).half()}

    with pytest.raises(ValueError, match=r"bias \[k \* n\]"):
        SlotExpert.from_payload(payload, {})


def test_several_sets_of_slots_write_the_same() -> None:
    """A row that either set recognises is answered by what both write."""
    one, other = expert(0), expert(1)
    both = replace(
        one, down=torch.cat([one.down, other.down]), bias=torch.cat([one.bias, other.bias])
    )
    assert both.sets == 2
    again = SlotExpert.from_payload(both.payload(), both.metadata())
    assert (again.sets, len(again.up)) == (2, 3)

    steps = torch.arange(1, 5)
    shared = AlignedIntervention([(both, 1.0)]).residual(states(), steps)
    alone = AlignedIntervention([(one, 1.0), (replace(other, up=one.up), 1.0)])

    torch.testing.assert_close(shared, alone.residual(states(), steps))
    with pytest.raises(ValueError, match=r"down \[k \* n, d\]"):
        SlotExpert.from_payload(both.payload() | {"down": torch.zeros(5, HIDDEN)}, {})
