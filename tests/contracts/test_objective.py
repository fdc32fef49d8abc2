"""What every objective must do: named finite terms whose gradient reaches the editor's weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from editing_core.objectives.base import IN_SCOPE, Objective, ProbeBatch, Residual
from editing_core.objectives.losses import IGNORED
from editing_core.registry import OBJECTIVES

ROWS, STEPS, HIDDEN, VOCABULARY = 4, 3, 8, 11
ROLES = (*IN_SCOPE, "other_question")

Make = Callable[..., Objective]


@pytest.fixture(params=sorted(OBJECTIVES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(name: str) -> Make:
    def made(**settings: Any) -> Objective:
        objective: Objective = OBJECTIVES.resolve(name)(**settings)
        return objective

    return made


def probe_batch(roles: tuple[str, ...] = ROLES) -> ProbeBatch:
    """A linear model whose base logits are those of a zero residual."""
    random = torch.Generator().manual_seed(0)
    states = torch.randn(ROWS, STEPS, HIDDEN, generator=random)
    head = torch.randn(HIDDEN, VOCABULARY, generator=random)
    targets = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5, IGNORED]])

    def edited_hidden(residual: Residual) -> Tensor:
        steps = torch.arange(1, STEPS + 1).expand(ROWS, STEPS)
        return states + residual(states, steps)

    return ProbeBatch(
        edits=None,
        roles=roles,
        weights=torch.eye(ROWS),
        targets=targets,
        base_logits=states @ head,
        edited_hidden=edited_hidden,
        head=lambda hidden: hidden @ head,
    )


def scaling() -> tuple[Tensor, Residual]:
    weight = torch.full((HIDDEN,), 0.1, requires_grad=True)
    return weight, lambda states, _: states * weight


def nothing(states: Tensor, steps: Tensor) -> Tensor:
    return torch.zeros_like(states)


def test_the_terms_are_named_and_add_up(make: Make, name: str) -> None:
    objective = make()
    weight, scaled = scaling()
    objective.attach([weight])

    losses = objective.loss(probe_batch(), scaled)

    assert objective.name == name
    assert losses.terms
    torch.testing.assert_close(losses.total, torch.stack(list(losses.terms.values())).sum())
    assert all(bool(torch.isfinite(term)) for term in losses.terms.values())
    assert all(isinstance(figure, float) for figure in losses.figures.values())


def test_an_editor_that_changes_nothing_pays_nothing_for_locality(make: Make) -> None:
    objective = make()
    objective.attach([scaling()[0]])

    assert objective.needs_locality
    losses = objective.loss(probe_batch(), nothing)
    torch.testing.assert_close(losses.terms["locality"], torch.zeros(()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("role", ROLES)
def test_every_environment_reaches_the_residual(make: Make, role: str) -> None:
    objective = make()
    weight, scaled = scaling()
    objective.attach([weight])

    objective.loss(probe_batch((role,) * ROWS), scaled).total.backward()  # type: ignore[no-untyped-call]

    assert weight.grad is not None
    assert bool((weight.grad != 0).any())


def test_a_loss_changes_nothing_and_comes_out_the_same_again(make: Make) -> None:
    objective = make()
    weight, scaled = scaling()
    objective.attach([weight])
    for _ in range(3):
        objective.after_step()

    first, second = (objective.loss(probe_batch(), scaled).total for _ in range(2))

    assert torch.equal(first, second)


def test_its_state_can_be_taken_up_by_another(make: Make) -> None:
    first, second = make(), make()
    weight, scaled = scaling()
    for objective in (first, second):
        objective.attach([weight])
    for _ in range(3):
        first.after_step()
    assert (first.state is None) == (second.state is None)
    if first.state is not None and second.state is not None:
        second.state.load_state_dict(first.state.state_dict())

    for _ in range(2):
        losses = [o.loss(probe_batch(), scaled).total for o in (first, second)]
        assert torch.equal(*losses)
        first.after_step()
        second.after_step()


def test_its_settings_can_be_written_down_and_make_it_again(make: Make) -> None:
    settings = make().settings

    assert json.loads(json.dumps(settings)) == settings


def test_a_setting_that_does_not_exist_is_refused(make: Make) -> None:
    with pytest.raises(TypeError):
        make(charm=1.0)
