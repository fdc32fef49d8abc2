"""How often an edit fired: counted beside answers, kept in the database, shown with the edit."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app import firings
from app.cli import app
from app.firings import Firings
from app.settings import Settings
from app.store.database import Database
from app.store.firing_log import FiringLog
from tests.integration.conftest import Edit, answer
from tests.support.server import LiveServer, ServerProcess, eventually, picture


def fired(server: LiveServer, edit_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = server.client.get(f"/edits/{edit_id}").json()["fired"]
    listed = {
        each["id"]: each["fired"] for each in server.client.get("/edits?limit=200").json()["data"]
    }
    assert listed[edit_id] == shown
    return shown


def test_answers_are_counted_and_nothing_else(server: LiveServer, edit: Edit, image: str) -> None:
    made = edit()
    assert "fired" not in made
    assert fired(server, made["id"]) == {"count": 0, "last_at": None}
    for _ in range(2):
        assert answer(server.client, image)["applied"] != []
    answer(server.client, image, edits="off")
    shown = fired(server, made["id"])
    assert shown["count"] == 2
    assert shown["last_at"] >= made["created_at"]
    server.client.post(f"/admin/edits/{made['id']}/rollback")
    answer(server.client, image)
    assert fired(server, made["id"]) == shown


def test_the_command_shows_it(
    server: LiveServer, edit: Edit, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_URL", server.url)
    made = edit()
    answer(server.client, image)
    assert "fired" in CliRunner().invoke(app, ["edits", "--limit", "1"]).stdout
    assert "at least 1 times" in CliRunner().invoke(app, ["edits", made["id"]]).stdout


def start(model: Path, data_dir: Path) -> LiveServer:
    return LiveServer(Settings.load(model=str(model), data_dir=data_dir, device="cpu"))


def test_it_outlives_the_process(tiny_checkpoint: Path, tmp_path: Path) -> None:
    body = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}
    with start(tiny_checkpoint, tmp_path) as server:
        edit_id = server.client.post("/edits", json=body).json()["id"]
        answer(server.client, picture(1))
        before = fired(server, edit_id)
    with start(tiny_checkpoint, tmp_path) as server:
        assert fired(server, edit_id) == before
        answer(server.client, picture(1))
        assert fired(server, edit_id)["count"] == 2


def test_it_is_written_while_the_server_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """What was written before a kill is there after it."""
    body = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}
    file = tmp_path / "data" / "errata.db"

    def written() -> bool:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute("SELECT count FROM firings").fetchall() == [(1,)]

    program = "import app.firings; app.firings.FLUSH_S = 0.05; import app.cli; app.cli.main()"
    arguments = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--device", "cpu")
    with ServerProcess(*arguments, cwd=tmp_path, program=program) as server:
        edit_id = server.request("POST", "/edits", json=body).json()["id"]
        server.request("POST", "/generate", json={"prompt": "q", "image": picture(1)})
        eventually(written)
        server.process.kill()
    with start(tiny_checkpoint, tmp_path / "data") as again:
        assert fired(again, edit_id)["count"] == 1


def test_a_database_that_does_not_answer_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'errata.db'}", timeout_s=0.05)
    counts = Firings(FiringLog(database))
    monkeypatch.setattr(firings, "MOST", 2)

    async def story() -> None:
        counts.fired(["a", "b", "a"])
        with contextlib.closing(sqlite3.connect(tmp_path / "errata.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            await counts.flush()
            counts.fired(["a"])
            assert {i: each.count for i, each in (await counts.of(["a", "b"])).items()} == {
                "a": 3,
                "b": 1,
            }
        counts.fired(["c"])  # beyond what is held in memory
        await counts.flush()
        counts.fired(["a"])
        await counts.flush()
        shown = await counts.of(["a", "b", "c"])
        assert {i: each.count for i, each in shown.items()} == {"a": 4, "b": 1}

    asyncio.run(story())
    database.close()
