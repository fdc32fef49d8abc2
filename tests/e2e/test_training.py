"""`errata train` as a real process, killed with a real signal."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.support.datasets import record, write_dataset
from tests.support.tiny_families import FAMILIES

ROOT = Path(__file__).parents[2]
STEPS = 16

pytestmark = pytest.mark.slow


def test_a_run_killed_at_any_moment_ends_with_the_weights_of_an_unbroken_one(
    tmp_path: Path,
) -> None:
    FAMILIES["qwen2_5_vl"].save(tmp_path / "model")
    write_dataset(tmp_path / "data", [record(n) for n in range(1, 7)], file="train.json")
    recipe = {
        "form": "aligned",
        "shape": {"heads": 4},
        "batch": 2,
        "validations": 0,
        "plan": {"steps": STEPS, "checkpoint_seconds": 0.0},
    }
    (tmp_path / "often.yaml").write_text(yaml.safe_dump({"aligned": recipe}))

    def command(name: str) -> list[str]:
        options = {
            "--model": tmp_path / "model",
            "--dataset": "vlkeb",
            "--path": tmp_path / "data",
            "--recipe": tmp_path / "often.yaml",
            "--device": "cpu",
            "--work": tmp_path / f"{name}-work",
            "--out": tmp_path / name,
        }
        return [
            sys.executable,
            *("-m", "app", "train"),
            *(str(part) for pair in options.items() for part in pair),
        ]

    def run(name: str) -> None:
        subprocess.run(command(name), cwd=ROOT, capture_output=True, timeout=300, check=True)

    run("unbroken")
    with subprocess.Popen(command("killed"), cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        made = tmp_path / "killed-work"
        while not list(made.glob("*/*/checkpoints/step-*/MANIFEST.json")):
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed").exists(), "it was killed too late"
    run("killed")

    unbroken, killed = (tmp_path / name / "liveedit.safetensors" for name in ("unbroken", "killed"))
    assert unbroken.read_bytes() == killed.read_bytes()
