"""One server writes a database: a second one is refused, and one that lost it serves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.errors import StartupError
from app.runtime import Runtime
from app.settings import Settings
from tests.integration.test_restart import ask, edit
from tests.support.server import LiveServer, eventually, picture

Start = Callable[..., LiveServer]


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path) -> Start:
    """A server with a data directory of its own, and the database of all of them."""

    def begin(data_dir: str = "data", **more: Any) -> LiveServer:
        return LiveServer(
            Settings.load(
                model=str(tiny_checkpoint), data_dir=tmp_path / data_dir, device="cpu", **more
            )
        )

    return begin


def refused(server: LiveServer) -> list[tuple[int, str, bool]]:
    """What a probe, a question and an edit are answered."""
    body = {"image": picture(1), "prompt": "q", "target": "red", "verify": "off"}
    ask = {"image": picture(1), "prompt": "q"}
    responses = [
        server.client.post("/edits", json=body),
        server.client.post("/generate", json=ask),
        server.client.get("/health/ready"),
    ]
    errors = [response.json()["error"] for response in responses]
    assert all(error["hint"] and error["type"] == "server_error" for error in errors)
    assert all(int(response.headers["retry-after"]) > 0 for response in responses)
    return [
        (r.status_code, e["code"], e["retryable"]) for r, e in zip(responses, errors, strict=True)
    ]


LOST = [(503, "store_lost", True)] * 3


def test_two_data_directories_cannot_share_a_database_url(start: Start, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with start("a", database_url=url) as server:
        edit(server)
        with pytest.raises(StartupError, match=rf"shared\.db is in use .*{os.getpid()}.*database"):
            Runtime.open(Settings.load(data_dir=tmp_path / "b", database_url=url))
        edit(server, target="red")
    with start("b", database_url=url) as server:
        assert server.version() == 2


def test_a_server_whose_lock_was_removed_gives_way_to_the_next_by_name(
    start: Start, tmp_path: Path
) -> None:
    with start() as first:
        made = edit(first)
        for lock in (tmp_path / "data").glob("*.lock"):
            lock.unlink()
        with start() as second:
            edit(second, target="red")
            eventually(lambda: first.client.get("/health/ready").status_code == 503)
            assert refused(first) == LOST
            assert "taken over by process" in first.client.get("/edits").json()["error"]["message"]
            assert edit(second, target="green")["version"] == 3
            assert second.client.get(f"/edits/{made['id']}").json()["status"] == "superseded"
        assert refused(first) == LOST
    with start() as server:
        assert server.version() == 3


def test_the_first_write_after_a_takeover_is_refused_and_nothing_is_written(
    start: Start, tmp_path: Path
) -> None:
    with start() as first:
        for lock in (tmp_path / "data").glob("*.lock"):
            lock.unlink()
        with start() as second:
            body = {"image": picture(1), "prompt": "q", "target": "red", "verify": "off"}
            response = first.client.post("/edits", json=body)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "store_lost")
            assert int(response.headers["retry-after"]) > 0
            assert second.client.get("/edits").json()["data"] == []


def test_a_moved_data_directory_is_noticed_and_goes_on_where_it_is(
    start: Start, tmp_path: Path
) -> None:
    with start() as server:
        edit(server)
        answer = ask(server)
        (tmp_path / "data").rename(tmp_path / "moved")
        eventually(lambda: server.client.get("/health/ready").status_code == 503)
        assert refused(server) == LOST
        told = server.client.get("/health/ready").json()["reasons"]
        assert told == ["The file of the database was moved, removed or replaced."]
    assert not (tmp_path / "data").exists()
    with start("moved") as server:
        assert ask(server) == answer


def test_a_removed_database_is_not_begun_anew_by_the_server_that_had_it(
    start: Start, tmp_path: Path
) -> None:
    with start() as server:
        edit(server)
        (tmp_path / "data" / "errata.db").unlink()
        eventually(lambda: server.client.get("/health/ready").status_code == 503)
        assert refused(server) == LOST
    assert not (tmp_path / "data" / "errata.db").exists()


def test_reencode_is_refused_beside_a_server_that_uses_the_same_database(
    start: Start, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    (tmp_path / "errata.toml").write_text(f"database_url = '{url}'\n", encoding="utf-8")
    with start("a", database_url=url) as server:
        edit(server)
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(tmp_path)
            told = CliRunner().invoke(
                app, ["reencode", "--model", str(tiny_checkpoint), "--data-dir", "b"]
            )
        assert (told.exit_code, told.exception is None or SystemExit) == (1, SystemExit)
        assert "shared.db is in use by another server" in told.output


@pytest.mark.parametrize("room", [0, 3, 4096], ids=["lock", "lock half", "database"])
def test_a_first_start_on_a_full_disk_is_refused_by_name_and_works_later(
    tmp_path: Path, room: int
) -> None:
    """No file may grow beyond `room` bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    settings = Settings.load(data_dir=tmp_path / "data")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(StartupError, match=r"^cannot (use|open) .*(data|errata\.db)"):
            Runtime.open(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "data" / "errata.db").exists()
    asyncio.run(Runtime.open(settings).close())
