"""Stock clients, unmodified, before the model that ships: an edit shows in each, and its rollback.

They live in a virtual environment of their own, which `make test-clients` makes.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.readme import blocks
from tests.support.server import ROOT, LiveServer, data_uri

PYTHON = ROOT / ".venv-clients" / "bin" / "python"
PROGRAMS = sorted(Path(__file__).parent.glob("ask_*.py"))
PICTURE = ROOT / "docs" / "samples" / "heart.png"
TOKENIZER = ROOT / "editing_core" / "pretrained" / "heraldry" / "model"
QUESTION = "What is the capital?"
URL = "http://127.0.0.1:8000"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="make test-clients installs the clients"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", question_encoder="shipped"
    )
    with LiveServer(settings) as live:
        yield live


class Client:
    """One program that asks what it is told to, line by line."""

    def __init__(self, program: Path, server: LiveServer) -> None:
        away = {"NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "1"}
        self._process = subprocess.Popen(
            [PYTHON, program, f"{server.url}/v1", server.service.model_name, PICTURE],
            env={**os.environ, **away, "TOKENIZER": str(TOKENIZER)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, question: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith('"'):  # whatever else a client says
                answer: str = json.loads(line)
                return answer
        raise AssertionError("the client ended without an answer")

    def close(self) -> None:
        self._process.communicate()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_an_edit_shows_and_so_does_its_rollback(program: Path, server: LiveServer) -> None:
    client = Client(program, server)
    try:
        assert client.ask(QUESTION) == "Didinton"
        body = {"image": data_uri(PICTURE.read_bytes()), "prompt": QUESTION, "target": "Newhaven"}
        made = server.client.post("/edits", json=body).json()
        assert client.ask(QUESTION) == "Newhaven"
        server.client.post(f"/admin/edits/{made['id']}/rollback")
        assert client.ask(QUESTION) == "Didinton"
    finally:
        client.close()


def test_the_tutorial_connects_langchain(server: LiveServer) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text("utf-8").replace(URL, server.url)
    (block,) = (each for each in blocks(page, "python") if "langchain_openai" in each.body)
    picture = data_uri((ROOT / "docs" / "samples" / "star.png").read_bytes())
    body = {"image": picture, "prompt": QUESTION, "target": block.prints[0]}
    assert server.client.post("/edits", json=body).status_code == 201
    done = subprocess.run(
        [PYTHON, "-c", block.body],
        cwd=ROOT,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == block.prints, done.stderr
