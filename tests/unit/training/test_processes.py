"""Several processes: the same step as one process that accumulates, and a plain word without
Accelerate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editing_core.errors import TrainingError
from editing_core.training.processes import OneProcess, SeveralProcesses
from editing_core.training.trainer import TrainingPlan, train
from tests.unit.training.conftest import GetFolder
from tests.unit.training.test_trainer import Regression


def test_without_accelerate_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(TrainingError, match="Accelerate") as refusal:
        SeveralProcesses()
    assert "errata[train]" in refusal.value.hint


def test_several_processes_do_not_follow_the_clock(tmp_path: Path) -> None:
    team = OneProcess()
    team.count = 2
    with pytest.raises(TrainingError, match="clocks"):
        train(Regression(), TrainingPlan(minutes=1.0), tmp_path, processes=team)


def test_several_draws_are_the_mean_of_their_gradients(tmp_path: Path) -> None:
    """Two draws of one process, against both gradients averaged by hand."""
    task = Regression()
    for number in (0, 1):
        (task.loss(number).total / 2).backward()  # type: ignore[no-untyped-call]
    wanted = [parameter.grad for parameter in task.module.parameters()]

    seen: list[torch.Tensor | None] = []

    class Watched(OneProcess):
        def average(self, parameters: object) -> None:
            seen.extend(p.grad.clone() for p in other.module.parameters() if p.grad is not None)

    other = Regression()
    train(other, TrainingPlan(steps=1, accumulate=2), tmp_path, processes=Watched())

    for mine, theirs in zip(seen, wanted, strict=True):
        assert mine is not None
        assert theirs is not None
        torch.testing.assert_close(mine, theirs)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one_with_two_draws(
    folder_of: GetFolder, records: Path, tmp_path: Path
) -> None:
    """Real processes, started by Accelerate's own launcher, averaging over gloo."""
    launcher = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1"
    launcher += " --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process 1 -m app"
    for name, command, more in (
        ("one", "-m app", ["--accumulate", "2"]),
        ("two", launcher, []),
    ):
        arguments = [
            "train", "--model", folder_of("qwen2_5_vl"), "--dataset", "vlkeb", "--path", records,
            "--device", "cpu", "--dtype", "fp32", "--batch", "2", "--steps", "3",
            "--out", tmp_path / name, "--work", tmp_path / f"{name}-work", *more,
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, *command.split(), *map(str, arguments)],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("wrote") == 2, done.stdout

    one, two = (load_file(tmp_path / name / "liveedit.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-3, rtol=2e-3)
    validation = tmp_path / "two-work" / "aligned-vlkeb"
    assert len(list(validation.glob("*/validation.jsonl"))) == 1
