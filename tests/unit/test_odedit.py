"""ODEdit's terms and switches, by hand on a small linear model; what LiveEdit charges beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from editing_core.objectives.invariance import total_variation
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.objectives.losses import mean_over_tokens, median_bandwidths, mmd, sequence_nll
from editing_core.objectives.odedit import ODEdit, SameData, environment_of
from tests.contracts.test_objective import nothing, probe_batch, scaling


def terms(**settings: Any) -> dict[str, Tensor]:
    objective = ODEdit(**settings)
    weight, scaled = scaling()
    objective.attach([weight])
    return dict(objective.loss(probe_batch(), scaled).terms)


def test_every_role_has_an_environment() -> None:
    roles = ("edit", "rephrase", "view", "other_question", "stranger")
    found = [environment_of(role) for role in roles]

    assert found == ["in", "semantic", "semantic", "out", "out"]


def test_the_risks_are_those_of_their_rows() -> None:
    batch = probe_batch()
    _, scaled = scaling()
    hidden = batch.edited_hidden(scaled)
    features = mean_over_tokens(hidden, batch.targets)
    bandwidths = median_bandwidths(features[:3], (0.5, 1.0, 2.0, 4.0))
    likelihood = sequence_nll(batch.head(hidden), batch.targets)

    found = terms()

    assert set(found) == {"reliability", "paired", "mmd", "locality", "penalty"}
    torch.testing.assert_close(found["reliability"], likelihood[0])
    torch.testing.assert_close(found["paired"], likelihood[1:3].mean())
    torch.testing.assert_close(found["mmd"], mmd(features[:1], features[1:3], bandwidths))


@pytest.mark.parametrize(
    ("dropped", "term"),
    [("rel", "reliability"), ("paired", "paired"), ("gen", "mmd"), ("loc", "locality")],
)
def test_each_term_can_be_dropped_and_weighed(dropped: str, term: str) -> None:
    whole, doubled = terms(), terms(**{dropped: 2.0})

    assert set(whole) - set(terms(**{dropped: 0.0})) == {term}
    torch.testing.assert_close(doubled[term], 2 * whole[term])


def test_the_penalty_is_the_variation_of_the_slopes_times_lambda() -> None:
    weight, scaled = scaling()
    for variation in ("l1", "l2"):
        objective = ODEdit(anneal_steps=0, fixed_lambda=0.5, variation=variation)
        objective.attach([weight])
        losses = objective.loss(probe_batch(), scaled)
        slopes = [
            torch.tensor(losses.figures[f"slope_{name}"]) for name in ("in", "semantic", "out")
        ]

        expected = total_variation(slopes, "l1" if variation == "l1" else "l2")

        assert losses.figures["variation"] == pytest.approx(float(expected))
        assert losses.figures["lambda"] == 0.5
        torch.testing.assert_close(losses.terms["penalty"], 0.5 * expected)


def test_the_slopes_are_derivatives_of_the_risks_in_the_features_scale() -> None:
    """Against finite differences of the whole objective, every environment at once."""
    batch, (weight, scaled) = probe_batch(), scaling()
    features = mean_over_tokens(batch.edited_hidden(scaled), batch.targets)[:3]
    bandwidths = median_bandwidths(features, (0.5, 1.0, 2.0, 4.0))

    def semantic(scale: float) -> float:
        hidden = scale * batch.edited_hidden(scaled).double()
        logits = scale * batch.head(batch.edited_hidden(scaled)).double()
        points = mean_over_tokens(hidden, batch.targets)
        paired = sequence_nll(logits[1:3], batch.targets[1:3]).mean()
        return float((paired + mmd(points[:1], points[1:3], bandwidths.double())).detach())

    objective = ODEdit()
    objective.attach([weight])
    slope = objective.loss(batch, scaled).figures["slope_semantic"]

    assert slope == pytest.approx((semantic(1.0001) - semantic(0.9999)) / 0.0002, abs=1e-4)


def test_the_likelihood_of_rephrases_alone_leaves_mmd_in_the_penalty() -> None:
    with_mmd, without = ODEdit(paired=0.0), ODEdit(paired=0.0, gen=0.0)
    weight, scaled = scaling()
    for objective in (with_mmd, without):
        objective.attach([weight])

    assert with_mmd.loss(probe_batch(), scaled).figures["slope_semantic"] != 0.0
    assert "slope_semantic" not in without.loss(probe_batch(), scaled).figures


def test_the_direction_of_locality_is_a_setting() -> None:
    edited, base = (terms(kl=kl)["locality"] for kl in ("edited_first", "base_first"))
    liveedit = LiveEditObjective().loss(probe_batch(), scaling()[1]).terms["locality"]

    assert float(edited.detach()) != float(base.detach())
    torch.testing.assert_close(base, liveedit)


def test_lambda_is_told_at_every_step_and_stays_within_its_bound() -> None:
    objective = ODEdit(anneal_steps=2, cap=0.9)
    weight, scaled = scaling()
    objective.attach([weight])
    optimiser = torch.optim.SGD([weight], lr=0.01)
    told = []

    for _ in range(30):
        losses = objective.loss(probe_batch(), scaled)
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        objective.after_step()
        told.append((losses.figures["lambda"], losses.figures["variation"]))

    assert [value for value, _ in told[:2]] == [0.0, 0.0]
    assert all(0.0 < value <= 0.9 + 1e-6 for value, _ in told[2:])
    assert all(variation > 0.0 for _, variation in told)


def test_the_control_has_the_same_data_and_nothing_else_of_odedit() -> None:
    control = SameData()
    weight, scaled = scaling()
    control.attach([weight])

    found = dict(control.loss(probe_batch(), scaled).terms)

    assert set(found) == {"reliability", "paired", "locality"}
    for name, term in terms().items():
        if name in found:
            torch.testing.assert_close(found[name], term)
    assert control.state is None
    with pytest.raises(TypeError):
        SameData(gen=1.0)


def test_without_locality_no_row_out_of_scope_is_needed() -> None:
    assert not ODEdit(loc=0.0).needs_locality
    assert not LiveEditObjective(locality_weight=0.0).needs_locality


@pytest.mark.parametrize(
    "settings",
    [{"kl": "both"}, {"variation": "l3"}, {"power": 1.0}, {"bandwidths": ()}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings)).rstrip("s")):
        ODEdit(**settings)


def test_liveedit_names_its_generalities_apart() -> None:
    losses = LiveEditObjective().loss(probe_batch(), nothing)

    assert set(losses.terms) == {"edit", "rephrase", "view", "locality"}
    assert set(losses.figures) == {"edit_exact", "rephrase_exact", "view_exact"}


def test_liveedit_charges_locality_in_proportion_to_its_weight() -> None:
    _, scaled = scaling()

    single = LiveEditObjective().loss(probe_batch(), scaled).terms["locality"]
    double = LiveEditObjective(locality_weight=2.0).loss(probe_batch(), scaled).terms["locality"]

    assert float(single.detach()) > 0
    torch.testing.assert_close(double, 2 * single)
