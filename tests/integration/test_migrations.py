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
from tests.support.server import LiveServer, picture


@pytest.mark.parametrize("revision", ["0001"])
def test_a_database_of_an_older_schema_is_served_as_it_was(
    tiny_checkpoint: Path, tmp_path: Path, revision: str
) -> None:
    data = tmp_path / "data"
    file = data / "errata.db"

    def start() -> LiveServer:
        return LiveServer(Settings.load(model=str(tiny_checkpoint), data_dir=data))

    body = {"image": picture(3), "prompt": "q", "target": "blue", "verify": "off"}
    key = {"Idempotency-Key": "k"}
    with start() as server:
        edit(server)
        undone = edit(server, target="red")
        edit(server, image=picture(2), note="far away", tags=["a"])
        first = server.client.post("/edits", json=body, headers=key)
        server.client.post(f"/admin/edits/{undone['id']}/rollback")
        before = state(server)
    old = written_at(revision, file, tmp_path)
    for path in data.glob("errata.db*"):
        path.unlink()
    old.rename(file)

    assert _rows(file, "SELECT version_num FROM alembic_version") == [(revision,)]
    with start() as server:
        assert state(server) == before
        assert server.client.post("/edits", json=body, headers=key).content == first.content
        edit(server, image=picture(5))
        assert ask(server, image=picture(5))["applied"]
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(data)])
    assert (told.exit_code, "0 problems" in told.output) == (0, True), told.output


def _rows(file: Path, query: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()
