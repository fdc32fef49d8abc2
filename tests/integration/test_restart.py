"""What is on disk is what is served, and nothing else is: restarts, damage, other weights."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from app.errors import StartupError, StoreCorrupt
from app.runtime import Runtime
from app.settings import Settings
from editing_core.errors import CheckpointCorrupt
from tests.support.server import LiveServer, picture
from tests.support.tiny_model import save_tiny_checkpoint

Start = Callable[..., LiveServer]


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path) -> Start:
    """A server on this test's data directory; `model` may be another checkpoint."""

    def begin(*, wait: bool = True, model: Path = tiny_checkpoint, **more: Any) -> LiveServer:
        settings = Settings.load(model=str(model), data_dir=tmp_path / "data", device="cpu", **more)
        return LiveServer(settings, wait=wait)

    return begin


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "errata.db"


def edit(server: LiveServer, **fields: Any) -> dict[str, Any]:
    body = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"} | fields
    response = server.client.post("/edits", json=body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def ask(server: LiveServer, **fields: Any) -> dict[str, Any]:
    body = {"image": picture(1), "prompt": "q", "max_new_tokens": 16} | fields
    answer: dict[str, Any] = server.client.post("/generate", json=body).json()
    return {name: answer[name] for name in ("text", "version", "applied", "usage")}


def state(server: LiveServer) -> list[Any]:
    """Everything a client can see that a restart must not change."""
    client = server.client
    versions = client.get("/versions").json()
    return [
        client.get("/edits").json(),
        client.get("/admin/events").json(),
        versions,
        *(ask(server, at_version=version) for version in range(versions["version"] + 1)),
        ask(server, image=picture(2)),
    ]


def test_a_restart_changes_nothing(start: Start) -> None:
    with start() as server:
        edit(server)
        b = edit(server, target="red")
        c = edit(server, prompt="other", target="green", supersedes=[b["id"]])
        edit(server, image=picture(2), target="far away")
        server.client.post(f"/admin/edits/{b['id']}/rollback")
        server.client.post(f"/admin/edits/{c['id']}/rollback")
        server.client.post(f"/admin/edits/{b['id']}/reinstate")
        server.client.post("/admin/rollback", json={"to_version": 3})
        before = state(server)
        key = {"Idempotency-Key": "k"}
        body = {"image": picture(3), "prompt": "q", "target": "blue", "verify": "off"}
        first = server.client.post("/edits", json=body, headers=key)
    with start() as server:
        replay = server.client.post("/edits", json=body, headers=key)
        assert (replay.content, replay.headers["idempotent-replayed"]) == (first.content, "true")
        server.client.post("/admin/rollback", json={"to_version": 8})
        assert [entry["id"] for entry in server.client.get("/edits").json()["data"]][1:] == [
            entry["id"] for entry in before[0]["data"]
        ]
    with start() as server:
        events = server.client.get("/admin/events").json()["data"]
        assert events[:8] == before[1]["data"]
        assert [ask(server, at_version=version) for version in range(9)] == before[3:12]


def damage(database: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE artifacts SET data = CAST(substr(data, 1, 900) || x'00' AS BLOB)",
        "UPDATE artifacts SET data = x'', digest = 'sha256:e3b0c442'",
        "DELETE FROM artifacts",
        "UPDATE edits SET target = 'what nobody said'",
    ],
    ids=["cut", "emptied", "deleted", "row"],
)
def test_a_damaged_edit_is_quarantined_and_named(
    start: Start, database: Path, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    with start() as server:
        base = ask(server, edits="off")["text"]
        older = edit(server, target="older")
        bad = edit(server)
        good = edit(server, prompt="other", image=picture(2))
    where = "edit_id" if "artifacts" in statement else "id"
    damage(database, f"{statement} WHERE {where} = '{bad['id']}'")

    with start() as server, caplog.at_level(logging.ERROR):
        statuses = [e["status"] for e in server.client.get("/edits").json()["data"]]
        assert statuses == ["active", "quarantined", "superseded"]
        listed = server.client.get("/edits?status=quarantined").json()["data"]
        assert [e["id"] for e in listed] == [bad["id"]]
        answer = ask(server)
        assert (answer["text"], answer["applied"]) == (base, [])
        assert ask(server, image=picture(2))["applied"][0]["edit_id"] == good["id"]

        undone = server.client.post(f"/admin/edits/{bad['id']}/rollback").json()
        assert undone["edit"]["status"] == "rolled_back"
        assert ask(server)["applied"][0]["edit_id"] == older["id"]
        back = server.client.post(f"/admin/edits/{bad['id']}/reinstate").json()
        assert back["edit"]["status"] == "quarantined"
        assert ask(server)["applied"] == []
    assert any(bad["id"] in record.getMessage() for record in caplog.records)


def test_edits_made_by_other_weights_are_stale(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start() as server:
        made = edit(server)
        edited = ask(server)
    other = save_tiny_checkpoint(tmp_path / "other", seed=1)
    with start(model=other) as server:
        assert server.client.get(f"/edits/{made['id']}").json()["status"] == "stale"
        assert ask(server)["applied"] == []
        assert server.client.get("/versions").json()["active_edits"] == 0
    assert any("stale" in r.getMessage() and made["id"] in r.getMessage() for r in caplog.records)
    with start() as server:
        assert ask(server) == edited


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            [
                "DROP TRIGGER events_refuse_update",
                "UPDATE events SET actor = 'x' WHERE version = 2",
            ],
            "event 2",
        ),
        (["PRAGMA foreign_keys = OFF", "DROP TRIGGER events_refuse_delete",
          "DELETE FROM events WHERE version = 1"], "event 2"),
        (["UPDATE head SET version = 7"], "the head is 7"),
    ],
    ids=["changed", "removed", "head"],
)  # fmt: skip
def test_a_history_that_does_not_add_up_is_not_served(
    start: Start, database: Path, statements: list[str], message: str
) -> None:
    with start() as server:
        edit(server)
        edit(server, target="red")
    for statement in statements:
        damage(database, statement)

    with start(wait=False) as server:
        failure = _failure(server)
        assert isinstance(failure, StoreCorrupt)
        assert message in str(failure)


def _failure(server: LiveServer) -> Exception | None:
    with pytest.raises(AssertionError):
        server.wait_until_ready()
    ready = server.client.get("/health/ready")
    assert ready.status_code == 503
    assert server.client.post("/generate", json={"prompt": "q"}).status_code == 503
    return server.runtime.failure


def test_events_cannot_be_rewritten_by_accident(start: Start, database: Path) -> None:
    with start() as server:
        edit(server)
    for statement in ("UPDATE events SET actor = 'x'", "DELETE FROM events"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            damage(database, statement)


def test_a_damaged_weight_file_is_named(
    start: Start, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    weights = copy / "router.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with start(wait=False, model=copy) as server:
        failure = _failure(server)
        assert isinstance(failure, CheckpointCorrupt)
        assert "router.safetensors" in str(failure)


def test_a_newer_schema_is_refused_by_name(
    start: Start, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start() as server:
        edit(server)
    damage(database, "UPDATE alembic_version SET version_num = '9999'")
    before = database.read_bytes()

    with pytest.raises(StartupError, match=r"schema 9999.*newer"):
        Runtime.open(Settings.load(data_dir=tmp_path / "data"))
    assert database.read_bytes() == before


def test_migrations_can_be_switched_off(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="ERRATA_MIGRATE"):
        Runtime.open(Settings.load(data_dir=tmp_path / "data", migrate=False))


def test_the_newest_migration_leaves_the_schema_of_the_tables(tmp_path: Path) -> None:
    import sqlalchemy as sa
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from app.store import tables
    from app.store.database import Database

    database = Database.open(f"sqlite:///{tmp_path / 'errata.db'}")
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        assert connection.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1
    database.close()
    assert ScriptDirectory("migrations").get_current_head() == "0009"


def test_a_second_server_on_the_same_data_is_refused(start: Start, tmp_path: Path) -> None:
    with start(), pytest.raises(StartupError, match="in use by another server"):
        Runtime.open(Settings.load(data_dir=tmp_path / "data"))
    with start():
        pass
