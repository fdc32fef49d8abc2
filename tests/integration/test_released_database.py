"""A database that the release before wrote is opened and answers, and its keys are replayed.

`tests/support/released` holds it, and says how it was made. Weights that ship may have changed
since: then its edits are stale and `errata reencode` makes them anew. What was answered stays so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from tests.support.server import LiveServer, eventually

RELEASED = Path(__file__).resolve().parents[1] / "support" / "released"
EXCHANGES: dict[str, Any] = json.loads((RELEASED / "exchanges.json").read_text("utf-8"))

Start = Callable[[], LiveServer]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with a copy of that database."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(RELEASED / "errata.db", folder)
    return folder


@pytest.fixture
def start(data_dir: Path) -> Start:
    def begin() -> LiveServer:
        return LiveServer(Settings.load(data_dir=data_dir, device="cpu", threads=1))

    return begin


def picture_of(body: dict[str, Any]) -> str:
    found: str = EXCHANGES["pictures"][body["image"]]
    return found


def replay(server: LiveServer, key: str, **changes: Any) -> dict[str, Any]:
    body = EXCHANGES["requests"][key] | changes
    sent = body | {"image": picture_of(body)}
    response = server.client.post("/edits", json=sent, headers={"Idempotency-Key": key})
    names = ("idempotent-replayed", "location")
    headers = {name: response.headers[name] for name in names if name in response.headers}
    return {"status": response.status_code, "headers": headers, "body": response.text}


def expected(server: LiveServer, key: str) -> dict[str, Any]:
    """The recorded answer; one that tells how an edit stands may tell that it is stale by now."""
    told: dict[str, Any] = EXCHANGES["replays"][key]
    is_stale = json.loads(told["body"])["id"] in server.service.history.stale()
    if is_stale and key.startswith("promised"):
        return told | {"body": told["body"].replace('"status":"active"', '"status":"stale"')}
    return told


def test_every_key_is_replayed_byte_for_byte(start: Start) -> None:
    for _ in range(2):  # as it was opened first, and brought up to date since
        with start() as server:
            for key in EXCHANGES["replays"]:
                assert replay(server, key) == expected(server, key), key
            other = replay(server, "active", target="another")
            assert (other["status"], other["headers"]) == (422, {})
            assert json.loads(other["body"])["error"]["code"] == "idempotency_mismatch"


def test_an_edit_that_was_pending_is_made(start: Start) -> None:
    pending = EXCHANGES["pending"]
    with start() as server:
        path = f"/edits/{pending['id']}"
        eventually(lambda: server.client.get(path).json()["status"] == "active")
        made = server.client.get(path).json()
        kept = set(pending) - {"status", "version", "progress", "timings_ms"}
        assert {name: made[name] for name in kept} == {name: pending[name] for name in kept}
        assert made["version"] == len(EXCHANGES["events"]) + 1
        again = replay(server, "pending")
        assert (again["status"], again["headers"]) == (201, {"idempotent-replayed": "true"})
        assert json.loads(again["body"])["id"] == pending["id"]


def test_history_reads_as_it_did(start: Start) -> None:
    with start() as server:
        events = server.client.get("/admin/events?limit=200").json()["data"]
        assert events[: len(EXCHANGES["events"])] == EXCHANGES["events"]
        for then in EXCHANGES["edits"]:
            if then["status"] == "pending":
                continue
            found = server.client.get(f"/edits/{then['id']}").json()
            expected = then
            if then["id"] in server.service.history.stale() and then["status"] != "rolled_back":
                expected = then | {"status": "stale"}
            assert {name: found[name] for name in expected} == expected


def test_its_edits_are_in_force_under_eyes_that_it_did_not_know(data_dir: Path) -> None:
    settings = Settings.load(data_dir=data_dir, device="cpu", threads=1, eyes="shipped")
    with LiveServer(settings) as server:
        versions = server.client.get("/versions").json()
        assert versions["eyes"] is not None
        stale = set(server.service.history.stale())
        for then in EXCHANGES["edits"]:
            if then["status"] == "active" and then["id"] not in stale:
                assert server.client.get(f"/edits/{then['id']}").json()["status"] == "active"
        asked = EXCHANGES["ask"]
        ask = {"image": picture_of(asked), "prompt": asked["prompt"]}
        if not stale:
            assert server.client.post("/generate", json=ask).json()["text"] == asked["target"]


def test_it_answers_and_is_sound(start: Start, data_dir: Path) -> None:
    remade = CliRunner().invoke(
        app, ["reencode", "--verify", "report", "--data-dir", str(data_dir)]
    )
    assert remade.exit_code == 0, remade.output
    with start() as server:
        asked = EXCHANGES["ask"]
        ask = {"image": picture_of(asked), "prompt": asked["prompt"]}
        assert server.client.post("/generate", json=ask).json()["text"] == asked["target"]
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(data_dir)])
    assert (told.exit_code, "0 problems" in told.output) == (0, True), told.output
