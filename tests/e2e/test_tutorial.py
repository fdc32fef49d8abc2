"""The tutorial, run as printed: its `sh` and `python` blocks, one after another.

Its `bash` blocks need more than a running server: a GPU, a download, a container.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.readme import Block, Shell, blocks, installed_client
from tests.support.server import ROOT, LiveServer, data_uri

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
HERE = ('make serve ARGS="--data-dir data/tutorial"', "source .venv/bin/activate")
"""What the fixtures do."""

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial uses curl")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """As it is once the console's part is done: one correction, in version 1."""
    settings = Settings.load(data_dir=tmp_path / "data", device="cpu", question_encoder="shipped")
    with LiveServer(settings) as live:
        picture = (ROOT / "docs" / "samples" / "heart.png").read_bytes()
        body = {"image": data_uri(picture), "prompt": "What is the capital?", "target": "Newhaven"}
        assert live.client.post("/edits", json=body).json()["version"] == 1
        yield live


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands are typed; what they write stays here."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


@pytest.fixture
def environment(server: LiveServer, folder: Path) -> Mapping[str, str]:
    return os.environ | {
        "ERRATA_URL": server.url,
        "NO_PROXY": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": installed_client(folder),
        "OMP_NUM_THREADS": "1",
    }


def test_it_prints_what_it_says(
    server: LiveServer, folder: Path, environment: Mapping[str, str]
) -> None:
    checked = 0
    with Shell(folder, environment=environment, errors=folder / "errors.txt") as shell:
        for block in blocks(PAGE.replace("http://127.0.0.1:8000", server.url), "sh", "python"):
            if block.language == "python":
                checked += run_python(block, folder, environment)
                continue
            for step in block.steps:
                if step.command not in HERE:
                    printed = shell.run(step.command)
                    first = printed.partition("\n")[0]  # `explain` adds a table
                    assert step.printed in (None, first), step.command
                    checked += step.printed is not None
        key = shell.run('echo "$ERRATA_API_KEY"')

    assert checked >= 15
    headers = {"Authorization": f"Bearer {key}"}
    assert server.client.get("/versions", headers=headers).json()["version"] == 7
    assert "0 questions fail" in (folder / "report.html").read_text("utf-8")
    assert (folder / "corrections.zip").is_file()


def run_python(block: Block, folder: Path, environment: Mapping[str, str]) -> int:
    """How many lines it was right about; none where it needs what is not installed here."""
    _, _, needed = block.body.partition("\n")[0].partition("# needs ")
    if needed and importlib.util.find_spec(needed.replace("-", "_")) is None:
        return 0
    done = subprocess.run(
        [sys.executable, "-c", block.body],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == block.prints
    return len(block.prints)


def test_it_has_every_part() -> None:
    """Nobody drops a part unseen, or makes of a block that can be run one that is not."""
    commands = [step.command for block in blocks(PAGE, "sh") for step in block.steps]
    named = [line for line in PAGE.splitlines() if line.startswith("## ")]

    assert [line.split(".")[0] for line in named] == [f"## {number}" for number in range(1, 7)]
    for command in ("ask", "edit", "explain", "scope", "edits", "rollback", "restore", "keys"):
        assert any(f"errata {command} " in each for each in commands), command
    assert any("--at-version" in command for command in commands)


def test_its_pictures_are_small() -> None:
    pictures = sorted((ROOT / "docs" / "images").glob("tutorial-*.webp"))

    assert 1 <= len(pictures) <= 6
    assert [picture.name for picture in pictures if picture.stat().st_size > 60_000] == []
    assert [picture.name for picture in pictures if f"images/{picture.name}" not in PAGE] == []
