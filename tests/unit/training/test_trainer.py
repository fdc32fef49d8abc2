"""The training loop: killed and resumed it ends where an unbroken run ends, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from editing_core.errors import AnotherPlan
from editing_core.objectives.base import LossTerms
from editing_core.training.checkpoint import Progress, resume, save_checkpoint
from editing_core.training.trainer import TrainingPlan, make_optimisers, train


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


class Regression:
    """A small task with matrices, vectors and a batch that depends on the step."""

    name = "regression"

    def __init__(self, *, killed_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        self._killed_at = killed_at

    def loss(self, step: int) -> LossTerms:
        if step == self._killed_at:
            raise Killed
        random = np.random.default_rng([7, step])
        inputs = torch.from_numpy(random.standard_normal((16, 4))).float()
        error = self.module(inputs)[:, 0] - inputs.sum(1)
        return LossTerms({"error": error.square().mean()}, {"step": float(step)})


EVERY_STEP = TrainingPlan(steps=12, checkpoint_seconds=0.0, report_every=4)


def weights(task: Regression) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in task.module.parameters()]


def test_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    unbroken = Regression()
    train(unbroken, EVERY_STEP, tmp_path / "unbroken")

    with pytest.raises(Killed):
        train(Regression(killed_at=7), EVERY_STEP, tmp_path / "killed")
    resumed = Regression()
    progress = train(resumed, EVERY_STEP, tmp_path / "killed")

    assert progress.step == 12
    for mine, theirs in zip(weights(resumed), weights(unbroken), strict=True):
        assert torch.equal(mine, theirs)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Regression(killed_at=7), EVERY_STEP, tmp_path)
    newest = tmp_path / "step-00000007" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    unbroken, resumed = Regression(), Regression()
    train(unbroken, EVERY_STEP, tmp_path / "unbroken")

    train(resumed, EVERY_STEP, tmp_path)

    for mine, theirs in zip(weights(resumed), weights(unbroken), strict=True):
        assert torch.equal(mine, theirs)


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(Regression(killed_at=3), EVERY_STEP, tmp_path)
    (tmp_path / "step-00000003").rename(tmp_path / "step-00000003.part")
    shutil.rmtree(tmp_path / "step-00000002")
    task = Regression()

    progress = resume(
        tmp_path,
        modules={"module": task.module},
        optimisers=make_optimisers(task.module, EVERY_STEP),
        plan={},
    )

    assert progress == Progress()


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    train(Regression(), EVERY_STEP, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000011", "step-00000012"]


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    train(Regression(), EVERY_STEP, tmp_path)
    again = Regression(killed_at=12)

    assert train(again, EVERY_STEP, tmp_path).step == 12


def test_another_plan_does_not_resume_this_run(tmp_path: Path) -> None:
    train(Regression(), EVERY_STEP, tmp_path)

    with pytest.raises(AnotherPlan, match="another plan"):
        train(Regression(), TrainingPlan(steps=12, seed=8), tmp_path)


def test_random_state_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    task = Regression()
    optimisers = make_optimisers(task.module, EVERY_STEP)
    torch.manual_seed(3)
    modules = {"module": task.module}
    save_checkpoint(
        tmp_path, Progress(5, 1.5), modules=modules, optimisers=optimisers, plan={"a": 1}
    )
    drawn = torch.rand(3)

    progress = resume(tmp_path, modules=modules, optimisers=optimisers, plan={"a": 1})

    assert progress == Progress(5, 1.5)
    assert torch.equal(torch.rand(3), drawn)


def test_figures_are_means_since_the_last_report(tmp_path: Path) -> None:
    reports: list[tuple[float, int, float]] = []

    train(
        Regression(),
        EVERY_STEP,
        tmp_path,
        report=lambda share, step, figures: reports.append((share, step, figures["step"])),
    )

    assert reports == [(4 / 12, 4, 1.5), (8 / 12, 8, 5.5), (1.0, 12, 9.5)]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    task = Regression()
    with torch.no_grad():
        next(task.module.parameters()).fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="regression"):
        train(task, EVERY_STEP, tmp_path)


def test_a_plan_has_one_length() -> None:
    with pytest.raises(ValueError, match="either steps or minutes"):
        TrainingPlan()
    with pytest.raises(ValueError, match="either steps or minutes"):
        TrainingPlan(steps=1, minutes=1.0)


def test_the_schedule_warms_up_stays_and_falls_to_zero() -> None:
    plan = TrainingPlan(steps=100, warm_up=10, constant=0.5)

    scales = [plan.rate_scale(Progress(step)) for step in (0, 9, 30, 75, 100)]

    assert scales == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])
    by_clock = TrainingPlan(minutes=2.0, warm_up=1)
    assert by_clock.share(Progress(10, 60.0)) == 0.5
