"""Schemas only grow, and what was written under an older one is served as it was."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from tests.integration.test_restart import ask, edit, state
from tests.support.old_schema import written_at
from tests.support.server import LiveServer, eventually, picture
from tests.support.store import alter

BODY = {"image": picture(3), "prompt": "q", "target": "blue", "verify": "off"}
KEY = {"Idempotency-Key": "k"}


class Data:
    """A data directory whose database can be put back to an older schema."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder / "data"
        self._scratch = folder
        self._model = str(model)

    def start(self, **fields: Any) -> LiveServer:
        return LiveServer(Settings.load(model=self._model, data_dir=self.folder, **fields))

    def put_back(self, revision: str) -> None:
        file = self.folder / "errata.db"
        old = written_at(revision, file, self._scratch)
        for path in self.folder.glob("errata.db*"):
            path.unlink()
        old.rename(file)
        with contextlib.closing(sqlite3.connect(file)) as connection:
            found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        assert found == [(revision,)]


@pytest.fixture
def data(tmp_path: Path, tiny_checkpoint: Path) -> Data:
    return Data(tmp_path, tiny_checkpoint)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_a_database_of_an_older_schema_is_served_as_it_was(data: Data, revision: str) -> None:
    with data.start() as server:
        edit(server)
        undone = edit(server, target="red")
        edit(server, image=picture(2), note="far away", tags=["a"])
        first = server.client.post("/edits", json=BODY, headers=KEY)
        server.client.post(f"/admin/edits/{undone['id']}/rollback")
        before = state(server)
    data.put_back(revision)

    with data.start(edit_wait_s=0) as server:
        assert state(server) == before
        assert server.client.post("/edits", json=BODY, headers=KEY).content == first.content
        later = server.client.post("/edits", json=BODY | {"image": picture(5)})
        assert later.status_code == 202
        eventually(lambda: ask(server, image=picture(5))["applied"] != [])
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(data.folder)])
    assert (told.exit_code, "0 problems" in told.output) == (0, True), told.output


def test_an_edit_that_was_damaged_under_an_older_schema_stays_so(data: Data) -> None:
    with data.start() as server:
        bad, good = edit(server), edit(server, image=picture(2))
    data.put_back("0004")
    alter(data.folder / "errata.db", f"UPDATE edits SET target = 'x' WHERE id = '{bad['id']}'")

    with data.start() as server:
        found = [server.client.get(f"/edits/{e['id']}").json()["status"] for e in (bad, good)]
        assert found == ["quarantined", "active"]
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(data.folder)])
    assert (told.exit_code, f"edit {bad['id']}" in told.output) == (1, True)


def test_an_edit_that_was_pending_under_an_older_schema_is_made(data: Data) -> None:
    with data.start(edit_wait_s=0) as server, server.device_held():
        asked = server.client.post("/edits", json=BODY, headers=KEY).json()
        server.drain()
    data.put_back("0002")

    with data.start(edit_wait_s=0) as server:
        made = f"/edits/{asked['id']}"
        eventually(lambda: server.client.get(made).json()["status"] == "active")
        assert server.client.get(made).json()["created_at"] == asked["created_at"]
        replay = server.client.post("/edits", json=BODY, headers=KEY)
        assert (replay.status_code, replay.json()["version"]) == (201, 1)


def test_reports_of_an_older_schema_stay_as_they_are(data: Data) -> None:
    """Their table is copied by the newest migration, with what it checks."""
    report = {
        "id": "01JA0000000000000000000000",
        "status": "open",
        "answer_id": "a",
        "verdict": "wrong",
        "prompt": "q",
        "answer": "red",
        "version": 0,
        "applied": "[]",
        "created_at": "2026-11-27T09:00:00.000Z",
        "created_by": "local",
    }
    with data.start():
        pass
    data.put_back("0008")
    file = data.folder / "errata.db"
    row = f"INSERT INTO feedback ({', '.join(report)}) VALUES ({', '.join('?' * len(report))})"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(row, list(report.values()))

    with data.start() as server:
        (kept,) = server.client.get("/feedback").json()["data"]
        assert {name: kept[name] for name in report if name != "applied"} == {
            name: value for name, value in report.items() if name != "applied"
        }
    odd = list({**report, "id": "b", "status": "odd"}.values())
    with contextlib.closing(sqlite3.connect(file)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="known_status"):
            connection.execute(row, odd)
        indexes = [found[1] for found in connection.execute("PRAGMA index_list(feedback)")]
    assert {"feedback_by_status", "feedback_by_source"} <= set(indexes)
