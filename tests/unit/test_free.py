"""Free experts: the paper's residual, summed without a rows x experts x hidden tensor."""

from __future__ import annotations

import pytest
import torch

from editing_core.experts.free import FreeExpert, FreeIntervention
from editing_core.experts.slots import standardise

HIDDEN = 8


def expert(seed: int) -> FreeExpert:
    random = torch.Generator().manual_seed(seed)
    return FreeExpert(
        down=torch.randn(4, HIDDEN, generator=random),
        up=torch.randn(4, HIDDEN, generator=random),
        bias=torch.randn(4, generator=random),
    )


def test_the_residual_is_the_weighted_sum_of_its_experts() -> None:
    hidden = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(9))
    weighted = [(expert(1), 0.6), (expert(2), 0.3)]

    residual = FreeIntervention(weighted).residual(hidden, torch.arange(-2, 3))

    normed = standardise(hidden)
    expected = sum(w * torch.relu(normed @ e.down.T + e.bias) @ e.up for e, w in weighted)
    torch.testing.assert_close(residual, expected)


def test_every_row_is_changed() -> None:
    hidden = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(9))

    residual = FreeIntervention([(expert(1), 1.0)]).residual(hidden, torch.arange(-4, 1))

    assert bool((residual != 0).any(dim=1).all())


def test_a_payload_reads_back_as_stored() -> None:
    payload = expert(1).payload()

    again = FreeExpert.from_payload(payload)

    assert expert(1).metadata() == {"kind": "free"}
    for name, tensor in again.payload().items():
        assert torch.equal(tensor, payload[name])


def test_damaged_payloads_are_refused() -> None:
    payload = expert(1).payload()

    with pytest.raises(ValueError, match="up"):
        FreeExpert.from_payload({"down": payload["down"], "bias": payload["bias"]})
    with pytest.raises(ValueError, match="bias"):
        FreeExpert.from_payload(payload | {"bias": torch.zeros(3).half()})
    with pytest.raises(ValueError, match="at least one"):
        FreeIntervention([])
