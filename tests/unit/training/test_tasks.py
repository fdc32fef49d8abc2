"""What a step trains on: drawn from seed and step alone, with rivals mixed in, paired right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.editors.liveedit import Form, LiveEdit, LiveEditConfig
from editing_core.errors import AnotherPlan
from editing_core.objectives.base import IN_SCOPE, Objective
from editing_core.objectives.liveedit import LiveEditObjective
from editing_core.objectives.losses import IGNORED
from editing_core.objectives.odedit import ODEdit
from editing_core.registry import OBJECTIVES
from editing_core.routing.router import Router, RouterConfig
from editing_core.states import RoutingStates
from editing_core.training.frozen import FrozenDecoder
from editing_core.training.liveedit import LiveEditTask, PrefixBank
from editing_core.training.pairs import RoutingBank, compare
from editing_core.training.router import RouterTask
from editing_core.training.scenes import Stage
from editing_core.training.trainer import TrainingPlan, train

MakeTask = Callable[..., LiveEditTask]


@pytest.fixture(scope="module")
def frozen(tiny_model: EditableModel) -> FrozenDecoder:
    backbone = tiny_model.backbone
    return FrozenDecoder(backbone.decoder, backbone.output_head, layer=1, storage=torch.float32)


@pytest.fixture(scope="module")
def make_task(tiny_model: EditableModel, frozen: FrozenDecoder) -> MakeTask:
    backbone = tiny_model.backbone
    bank = PrefixBank.prepare(
        Stage(backbone, frozen, all_blocks=True), range(6), split="train", questions=3
    )

    def make(form: Form, objective: Objective | None = None) -> LiveEditTask:
        torch.manual_seed(0)
        config = LiveEditConfig(backbone.hidden_size, edit_layer=1, form=form, width=16, heads=4)
        return LiveEditTask(
            LiveEdit(config),
            backbone,
            frozen,
            bank,
            objective or LiveEditObjective(),
            seed=7,
            batch=4,
        )

    return make


@pytest.fixture(scope="module")
def routing(tiny_model: EditableModel, frozen: FrozenDecoder) -> tuple[Router, RoutingBank]:
    backbone = tiny_model.backbone
    stage = Stage(backbone, frozen, all_blocks=False)
    torch.manual_seed(0)
    config = RouterConfig(
        backbone.hidden_size, layer=1, num_patches=backbone.num_image_tokens, width=16, heads=4
    )
    bank = RoutingBank.prepare(stage, range(3), split="train", questions=4, chunk=2)
    return Router(config).eval(), bank


@pytest.mark.parametrize("form", ["aligned", "paper"])
def test_a_step_is_a_function_of_its_number(make_task: MakeTask, form: Form) -> None:
    first, second = make_task(form).loss(3), make_task(form).loss(3)

    assert float(first.total.detach()) == float(second.total.detach())
    assert float(make_task(form).loss(4).total.detach()) != float(first.total.detach())


@pytest.mark.parametrize("form", ["aligned", "paper"])
def test_every_weight_of_the_generator_is_trained(make_task: MakeTask, form: Form) -> None:
    task = make_task(form)

    for step in range(2):
        task.loss(step).total.backward()  # type: ignore[no-untyped-call]
        # The perceptrons' last layers start at zero and hide the first ones for one step.
        with torch.no_grad():
            for parameter in task.module.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.01 * parameter.grad.sign())

    for name, parameter in task.module.named_parameters():
        if not name.endswith("key.bias"):  # a constant added to every key changes no attention
            assert parameter.grad is not None, name
            assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize("form", ["aligned", "paper"])
def test_any_objective_trains_any_form(make_task: MakeTask, form: Form) -> None:
    for name in OBJECTIVES:
        objective: Objective = OBJECTIVES.resolve(name)()
        task = make_task(form, objective)
        objective.attach(list(task.module.parameters()))

        task.loss(0).total.backward()  # type: ignore[no-untyped-call]

        assert any(
            bool((p.grad != 0).any()) for p in task.module.parameters() if p.grad is not None
        )


def test_rows_out_of_scope_are_drawn_where_the_objective_needs_them(make_task: MakeTask) -> None:
    batch = make_task("aligned", ODEdit(loc=0.0)).draw(np.random.default_rng(0))

    assert set(batch.roles) == set(IN_SCOPE)


def test_a_killed_run_with_odedit_resumes_exactly(make_task: MakeTask, tmp_path: Path) -> None:
    """Multiplier, its count of steps and its perceptron are part of a checkpoint."""
    plan = TrainingPlan(steps=6, checkpoint_seconds=0.0, report_every=1)
    told: list[list[Mapping[str, float]]] = []

    def run(folder: str, *, killed_at: int | None = None) -> tuple[LiveEditTask, ODEdit]:
        objective = ODEdit(anneal_steps=1)
        task = make_task("aligned", objective)
        told.append([])

        def report(share: float, step: int, figures: Mapping[str, float]) -> None:
            told[-1].append(figures)
            if step == killed_at:
                raise KeyboardInterrupt

        train(task, plan, tmp_path / folder, objective=objective, report=report)
        return task, objective

    unbroken, its_objective = run("unbroken")
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed_at=4)
    resumed, objective = run("killed")

    assert told[2] == told[0][3:]  # step 4 was made, and lost with its checkpoint
    assert told[0][-1]["lambda"] > told[0][1]["lambda"] > told[0][0]["lambda"] == 0.0
    assert objective.state is not None
    assert its_objective.state is not None
    for mine, theirs in ((resumed.module, unbroken.module), (objective.state, its_objective.state)):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_a_run_is_not_resumed_with_another_objective(make_task: MakeTask, tmp_path: Path) -> None:
    first, second = ODEdit(), ODEdit(gen=0.0)
    train(make_task("aligned", first), TrainingPlan(steps=1), tmp_path, objective=first)

    with pytest.raises(AnotherPlan, match="another plan"):
        train(make_task("aligned", second), TrainingPlan(steps=2), tmp_path, objective=second)


def test_rows_in_scope_carry_their_own_expert_ahead_of_rivals(make_task: MakeTask) -> None:
    batch = make_task("aligned").draw(np.random.default_rng(0))
    edits = len(batch.edits)

    assert batch.roles == tuple(
        role for role in (*IN_SCOPE, "other_question") for _ in range(edits)
    )
    torch.testing.assert_close(batch.weights.sum(1), torch.ones(4 * edits))
    for row, role in enumerate(batch.roles):
        if role in IN_SCOPE:
            assert batch.weights[row, row % edits] == batch.weights[row].max()
    rivals = (batch.weights > 0).sum(1) - 1
    assert bool((rivals > 0).any())
    assert bool((rivals == 0).any())


def test_the_stop_token_is_trained(make_task: MakeTask, tiny_model: EditableModel) -> None:
    batch = make_task("aligned").draw(np.random.default_rng(0))

    for targets in batch.targets:
        last = targets[targets != IGNORED][-1]
        assert int(last) in tiny_model.backbone.stop_token_ids


def test_a_batch_without_experts_is_the_base_model(make_task: MakeTask) -> None:
    batch = make_task("aligned").draw(np.random.default_rng(0))

    logits = batch.edited_logits(lambda states, _: torch.zeros_like(states))

    assert torch.equal(logits, batch.base_logits)


def test_both_ways_through_the_model_agree(make_task: MakeTask) -> None:
    """Answer rows on a kept prefix, and whole rows through the upper blocks."""
    aligned = make_task("aligned").draw(np.random.default_rng(0))
    paper = make_task("paper").draw(np.random.default_rng(0))
    exists = aligned.targets != IGNORED

    whole = paper.edited_logits(lambda states, _: torch.zeros_like(states))

    torch.testing.assert_close(whole[exists], aligned.base_logits[exists], atol=1e-4, rtol=1e-4)


def test_every_pair_is_called_what_it_is(routing: tuple[Router, RoutingBank]) -> None:
    router, bank = routing
    with torch.no_grad():
        pairs = compare(router, bank, torch.tensor([0, 2]))

    rows = 2 * 2 * bank.questions
    assert pairs.text.shape == (rows, rows)
    assert pairs.own.sum(1).tolist() == [1] * rows
    assert pairs.look_alike.sum(1).tolist() == [1] * rows
    assert pairs.same_picture.sum(1).tolist() == [bank.questions] * rows
    assert pairs.same_subject.sum(1).tolist() == [2 * bank.questions] * rows
    assert bool((pairs.same_text | ~pairs.own).all())
    assert not bool((pairs.near_text & pairs.same_text).any())


def test_the_batched_scores_are_those_that_route(routing: tuple[Router, RoutingBank]) -> None:
    """Training compares whole batches; a server compares one row with stored keys."""
    router, bank = routing
    with torch.no_grad():
        pairs = compare(router, bank, torch.tensor([1]))
    edit = routing_states(bank, subject=1, view=0, question=2)
    query = routing_states(bank, subject=1, view=1, question=2)

    key = router.keys(edit, bank.keys[1, 0].numpy())
    features = router.query_features(query)

    text = router.scales.text(torch.from_numpy(key.text.ravel()) @ features.text)
    visual = router.scales.visual(
        (torch.from_numpy(key.visual) * features.visual).sum(-1),
        features.sentinel,
        bank.keys[1, 0] @ bank.keys[1, 1],
    )
    torch.testing.assert_close(text, pairs.text[2, 2], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(visual, pairs.visual[2, 2], atol=1e-4, rtol=1e-4)


def routing_states(bank: RoutingBank, *, subject: int, view: int, question: int) -> RoutingStates:
    count = int(bank.lengths[subject, view, question])
    words = bank.words[subject, view, question, :count].float()
    return RoutingStates(bank.images[subject, view].float(), words)


def test_every_routing_loss_is_finite_and_trains_both_sides(
    routing: tuple[Router, RoutingBank],
) -> None:
    router, bank = routing
    router.zero_grad()

    losses = RouterTask(router, bank, seed=7, batch=3).loss(0)
    losses.total.backward()  # type: ignore[no-untyped-call]

    assert set(losses.terms) == {
        "text_contrast",
        "text_gate",
        "visual_contrast",
        "sentinel",
        "visual_gate",
        "parts",
        "questions",
    }
    assert all(bool(torch.isfinite(term)) for term in losses.terms.values())
    for name, parameter in router.named_parameters():
        if not name.endswith("key.bias"):
            assert parameter.grad is not None, name
            assert bool((parameter.grad != 0).any()), name
