"""The same promises on PostgreSQL: a real server of its own, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from app.cli import app
from app.errors import StartupError
from app.runtime import Runtime
from app.settings import Settings
from tests.integration.test_one_owner import LOST, refused
from tests.integration.test_restart import ask, edit, state
from tests.support import postgresql
from tests.support.server import LiveServer, ServerProcess, eventually, picture

Start = Callable[..., LiveServer]

pytest.importorskip("psycopg", reason="the driver is not installed: errata[postgres]")
BIN = postgresql.programs()
if BIN is None:
    pytest.skip("PostgreSQL is not installed here", allow_module_level=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[postgresql.Cluster]:
    assert BIN is not None
    with postgresql.cluster(BIN) as running:
        yield running


@pytest.fixture
def url(cluster: postgresql.Cluster) -> str:
    return cluster.create()


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path, url: str) -> Start:
    def begin(data_dir: str = "data", **more: Any) -> LiveServer:
        fields = {"model": str(tiny_checkpoint), "database_url": url, "device": "cpu"} | more
        return LiveServer(Settings.load(data_dir=tmp_path / data_dir, **fields))

    return begin


def doctor(url: str, model: Path, data_dir: Path) -> tuple[int, str]:
    arguments = ["--database-url", url, "--data-dir", str(data_dir), "--model", str(model)]
    result = CliRunner().invoke(app, ["doctor", *arguments])
    return result.exit_code, result.output


def test_a_restart_changes_nothing(
    start: Start, url: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with start() as server:
        first = edit(server)
        second = edit(server, target="red")
        edit(server, prompt="other", target="зелёный 綠", note="a note", tags=["t"])
        server.client.post(f"/admin/edits/{second['id']}/rollback")
        server.client.post(f"/edits/{first['id']}/scope", json={"rephrases": ["q again"]})
        server.client.post("/admin/rollback", json={"to_version": 3})
        before = state(server)
    with start() as server:
        assert state(server) == before
    code, output = doctor(url, tiny_checkpoint, tmp_path / "data")
    assert code == 0, output


def test_the_same_key_makes_one_edit(start: Start) -> None:
    body = {"prompt": "q", "target": "blue", "verify": "off"}
    key = {"Idempotency-Key": "k"}
    with start() as server:
        made = server.client.post("/edits", json=body | {"image": picture(1)}, headers=key)
    with start() as server:
        again = server.client.post("/edits", json=body | {"image": picture(1)}, headers=key)
        assert (made.status_code, again.status_code) == (201, 201)
        assert again.json() == made.json()
        assert server.version() == 1


def test_what_was_acknowledged_survives_a_kill(
    url: str, tiny_checkpoint: Path, tmp_path: Path, start: Start
) -> None:
    where = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--database-url", url)
    with ServerProcess(*where, cwd=tmp_path) as running:
        assert running.client is not None
        body = {"image": picture(1), "target": "blue", "verify": "off"}
        made = [
            running.client.post("/edits", json=body | {"prompt": f"question {i}"}).json()
            for i in range(5)
        ]
        running.process.kill()
    with start() as server:
        assert server.version() == 5
        listed = server.client.get("/edits").json()["data"]
        assert {row["id"] for row in listed} == {row["id"] for row in made}


def test_a_second_server_is_refused_by_name(start: Start, tmp_path: Path, url: str) -> None:
    with start("a") as server:
        edit(server)
        settings = server.runtime.settings
        with pytest.raises(StartupError, match=r"postgresql://postgres@.* is in use .*process \d+"):
            Runtime.open(settings.model_copy(update={"data_dir": tmp_path / "b"}))
        edit(server, target="red")
    with start("b") as server:
        assert server.version() == 2


def test_a_server_that_lost_its_lock_gives_way_to_the_next(
    start: Start, cluster: postgresql.Cluster
) -> None:
    with start("a") as first:
        made = edit(first)
        cluster.disconnect()  # and with its connection, the lock
        with start("b") as second:
            assert ask(second)["applied"][0]["edit_id"] == made["id"]
            eventually(lambda: first.runtime.refusal() is not None)
            assert refused(first) == LOST
            edit(second, target="red")


def test_a_broken_connection_is_no_end(start: Start, cluster: postgresql.Cluster) -> None:
    with start() as server:
        edit(server)
        cluster.disconnect()
        edit(server, target="red")
        assert server.version() == 2


def test_a_commit_whose_end_nobody_saw_is_not_guessed_at(
    start: Start, cluster: postgresql.Cluster
) -> None:
    with start() as server:
        edit(server)
        engine = server.runtime._database._engine
        sa.event.listen(engine, "commit", lambda _connection: cluster.disconnect())
        body = {"image": picture(1), "prompt": "q", "target": "red", "verify": "off"}
        error = server.client.post("/edits", json=body).json()["error"]
        assert error["code"] == "store_lost"
        assert "Start the server again" in error["hint"]
        assert server.client.get("/health/ready").status_code == 503
    with start() as server:
        assert server.version() == 1
        edit(server, target="red")


def test_an_empty_or_older_database_is_no_new_one(
    start: Start, cluster: postgresql.Cluster, url: str
) -> None:
    with start() as server:
        edit(server)
    older = cluster.copy(url)
    with start() as server:
        edit(server, target="red")
    cluster.replace(url, older)
    with pytest.raises(StartupError, match="the head is 1, and version 2 was committed"):
        start()
    cluster.replace(url, cluster.create())
    with pytest.raises(StartupError, match=r"is empty, and version 2 .*To begin anew.*psql"):
        start()


def test_a_changed_row_harms_itself_alone(
    start: Start, cluster: postgresql.Cluster, url: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with start() as server:
        hurt, sound = edit(server), edit(server, prompt="other")
    cluster.alter(url, f"UPDATE edits SET target = 'forged' WHERE id = '{hurt['id']}'")
    with start() as server:
        status = {row["id"]: row["status"] for row in server.client.get("/edits").json()["data"]}
        assert status == {hurt["id"]: "quarantined", sound["id"]: "active"}
    code, output = doctor(url, tiny_checkpoint, tmp_path / "data")
    assert code == 1
    assert f"edit {hurt['id']}" in output
    cluster.alter(url, "UPDATE events SET actor = 'nobody' WHERE version = 1")
    code, output = doctor(url, tiny_checkpoint, tmp_path / "data")
    assert (code, "event 1 is damaged" in output) == (1, True)


def test_history_cannot_be_rewritten_in_passing(start: Start, url: str) -> None:
    with start() as server:
        edit(server)
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    for statement in ("DELETE FROM events", "UPDATE seals SET seal = ''"):
        with pytest.raises(sa.exc.ProgrammingError, match="append-only"), engine.begin() as c:
            c.exec_driver_sql(statement)
    engine.dispose()


def test_a_pending_edit_is_taken_up_again(start: Start) -> None:
    with start(edit_wait_s=0) as server:
        with server.device_held():
            response = server.client.post(
                "/edits", json={"image": picture(1), "prompt": "q", "target": "blue"}
            )
            assert response.status_code == 202
        edit_id = response.json()["id"]
        eventually(lambda: server.client.get(f"/edits/{edit_id}").json()["status"] != "pending")
    with start() as server:
        assert server.client.get(f"/edits/{edit_id}").json()["id"] == edit_id


def test_a_server_that_is_not_there_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    url = f"postgresql://somebody:secret@/errata?host={tmp_path}"
    with pytest.raises(StartupError, match="cannot reach the database") as refusal:
        Runtime.open(
            Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path / "d", database_url=url)
        )
    assert "secret" not in str(refusal.value)
