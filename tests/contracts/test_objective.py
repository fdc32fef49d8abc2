"""What every objective must do: named finite terms whose gradient reaches the editor's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from editing_core.objectives.base import ProbeBatch, Residual
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.objectives.losses import IGNORED

ROWS, STEPS, HIDDEN, VOCABULARY = 4, 3, 8, 11


def probe_batch(
    roles: tuple[str, ...] = ("edit", "rephrase", "view", "other_question"),
) -> ProbeBatch:
    """A linear model whose base logits are those of a zero residual."""
    random = torch.Generator().manual_seed(0)
    states = torch.randn(ROWS, STEPS, HIDDEN, generator=random)
    head = torch.randn(HIDDEN, VOCABULARY, generator=random)
    targets = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5, IGNORED]])

    def edited_logits(residual: Residual) -> Tensor:
        steps = torch.arange(1, STEPS + 1).expand(ROWS, STEPS)
        return (states + residual(states, steps)) @ head

    return ProbeBatch(
        edits=None,
        roles=roles,
        weights=torch.eye(ROWS),
        targets=targets,
        base_logits=states @ head,
        edited_logits=edited_logits,
    )


def nothing(states: Tensor, steps: Tensor) -> Tensor:
    return torch.zeros_like(states)


def test_the_terms_are_named_and_add_up() -> None:
    losses = LiveEditObjective().loss(probe_batch(), nothing)

    assert set(losses.terms) == {"edit", "rephrase", "view", "locality"}
    torch.testing.assert_close(losses.total, torch.stack(list(losses.terms.values())).sum())
    assert set(losses.figures) == {"edit_exact", "rephrase_exact", "view_exact"}


def test_an_editor_that_changes_nothing_pays_nothing_for_locality() -> None:
    losses = LiveEditObjective().loss(probe_batch(), nothing)

    torch.testing.assert_close(losses.terms["locality"], torch.zeros(()))


def test_locality_is_charged_in_proportion_to_its_weight() -> None:
    batch = probe_batch()

    def shift(states: Tensor, steps: Tensor) -> Tensor:
        return torch.ones_like(states)

    single = LiveEditObjective().loss(batch, shift).terms["locality"]
    double = LiveEditObjective(locality_weight=2.0).loss(batch, shift).terms["locality"]

    assert float(single.detach()) > 0
    torch.testing.assert_close(double, 2 * single)


def test_every_term_reaches_the_residual() -> None:
    for role in ("edit", "rephrase", "view", "other_question"):
        weight = torch.full((HIDDEN,), 0.1, requires_grad=True)

        def scaled(states: Tensor, steps: Tensor, weight: Tensor = weight) -> Tensor:
            return states * weight

        LiveEditObjective().loss(probe_batch((role,) * ROWS), scaled).total.backward()  # type: ignore[no-untyped-call]

        assert weight.grad is not None
        assert bool((weight.grad != 0).any())
