"""The README's story, run as printed: a real shell, a real server, the shipped model and pictures.

Only the address (a free port), the data directory and the words `make serve` are replaced.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support.readme import Shell, shell_blocks

ROOT = Path(__file__).resolve().parents[2]
ERRATA = str(Path(sys.executable).with_name("errata"))
SAMPLES = ROOT / "docs" / "samples"
FIRST_SCREEN = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def restart(port: int, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Stop the server if one runs, as Ctrl-C does, and start one on the same data directory."""
    running: list[subprocess.Popen[bytes]] = []

    def stop() -> None:
        for process in running:
            process.terminate()
            assert process.wait(timeout=60) == 0
        running.clear()

    def start_again() -> None:
        stop()
        flags = ["--port", str(port), "--data-dir", str(tmp_path)]
        # As a newcomer's is: with the question encoder that ships.
        settings = {**os.environ, "ERRATA_QUESTION_ENCODER": "shipped"}
        running.append(subprocess.Popen([ERRATA, "serve", *flags], cwd=tmp_path, env=settings))
        _wait_until_ready(port, running[0])

    yield start_again
    stop()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                return
        except httpx.TransportError:  # not listening yet
            pass
        time.sleep(0.1)
    raise AssertionError("the server did not get ready")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the story is told with curl")
def test_the_story_prints_what_it_says(port: int, restart: Callable[[], None]) -> None:
    checked = 0
    with Shell(ROOT) as shell:
        for block in shell_blocks(FIRST_SCREEN):
            for step in block:
                if step.command == "make serve":
                    restart()
                    continue
                printed = shell.run(step.command.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
                assert printed == (step.printed or ""), step.command
                checked += step.printed is not None

    assert checked >= 8


def test_the_story_has_every_turn() -> None:
    """Ask, edit, ask again, restart, roll back: nobody shortens the story unseen."""
    commands = [step.command for block in shell_blocks(FIRST_SCREEN) for step in block]

    assert commands.count("make serve") == 2
    assert sum(command.startswith("ask ") for command in commands) >= 7
    assert any("$(edit " in command for command in commands)
    assert any("/rollback" in command for command in commands)


def test_the_pictures_are_what_errata_sample_draws(tmp_path: Path) -> None:
    commands = [
        step.command
        for block in shell_blocks((SAMPLES / "README.md").read_text(encoding="utf-8"))
        for step in block
    ]
    assert len(commands) == len(list(SAMPLES.glob("*.png")))
    for command in commands:
        *arguments, file = command.split()[1:]
        drawn = tmp_path / Path(file).name
        subprocess.run([ERRATA, *arguments, str(drawn)], check=True, capture_output=True)

        # Not bit by bit: resampling may differ by a shade between processors.
        shipped = np.asarray(Image.open(ROOT / file), dtype=np.int16)
        difference = np.abs(np.asarray(Image.open(drawn), dtype=np.int16) - shipped)
        assert difference.mean() < 1.0, file
