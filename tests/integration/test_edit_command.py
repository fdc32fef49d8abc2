"""`errata edit` against a server that answers 202: it follows the edit to its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.commands import edit as command
from app.errata import synchronous
from app.settings import Settings
from tests.integration.test_edit_jobs import REFUSED
from tests.support.server import LiveServer, eventually, png
from tests.support.tiny_model import tiny_image


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        edit_wait_s=0,
        refine_steps=1,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def arguments(server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(command, "POLL_S", 0.01)
    image = tmp_path / "picture.png"
    image.write_bytes(png(tiny_image(5)))
    return ["edit", str(image), "q", "blue", "--verify", "off", "--url", server.url]


def edits(server: LiveServer, status: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get(f"/edits?status={status}").json()["data"]
    return found


def test_a_pending_edit_is_followed_until_it_is_committed(
    server: LiveServer, arguments: list[str]
) -> None:
    results: list[Result] = []
    runner = threading.Thread(target=lambda: results.append(CliRunner().invoke(app, arguments)))
    with server.device_held():
        runner.start()
        eventually(lambda: edits(server, "pending") != [])
    runner.join()

    (result,) = results
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == edits(server, "active")[0]["id"]
    assert "version 1: None -> None" in result.stderr


def test_one_that_fails_is_told_in_the_servers_words(
    server: LiveServer, arguments: list[str]
) -> None:
    arguments[3:6] = [REFUSED["target"], "--verify", REFUSED["verify"]]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 1
    assert "not the target" in result.stderr
    assert "(edit_not_effective)" in result.stderr


@pytest.mark.parametrize(
    ("typed", "status", "message"),
    [("y\n", "cancelled", "was cancelled"), ("n\nn\n", "pending", "goes on in the server")],
    ids=["cancel", "leave"],
)
def test_an_interrupt_asks_whether_to_cancel(
    server: LiveServer,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    status: str,
    message: str,
) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(synchronous, "time", SimpleNamespace(sleep=interrupt))
    with server.device_held():
        result = CliRunner().invoke(app, arguments, input=typed)
        newest = server.client.get("/edits?limit=1").json()["data"][0]
        server.client.post(f"/edits/{newest['id']}/cancel")

    assert result.exit_code == 1
    assert newest["status"] == status
    assert message in result.stderr
