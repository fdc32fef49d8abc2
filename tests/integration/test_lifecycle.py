"""Starting and draining, and what is refused before anything starts."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.errors import StartupError
from app.settings import Settings
from editing_core.checkpoint import write_manifest
from editing_core.editable_model import EditableModel
from tests.integration.test_errors_table import check
from tests.support.server import LiveServer, eventually, logging_restored, picture
from tests.support.tiny_model import save_tiny_checkpoint


def test_until_the_model_is_there_requests_are_told_so(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, release = EditableModel.load, threading.Event()

    def load_later(*arguments: Any, **more: Any) -> EditableModel:
        assert release.wait(120)
        return load(*arguments, **more)

    monkeypatch.setattr(EditableModel, "load", load_later)
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path)
    with LiveServer(settings, wait=False) as server:
        client = server.client
        check(client.post("/generate", json={"prompt": "q"}), 503, "starting", None)
        check(client.get("/edits"), 503, "starting", None)
        check(client.get("/versions"), 503, "starting", None)
        ready = client.get("/health/ready")
        check(ready, 503, "starting", None)
        assert ready.json()["reasons"] == ["The model is being loaded."]
        assert client.get("/health/live").status_code == 200
        assert client.get("/docs").status_code == 200
        check(client.get("/nowhere"), 404, "route_not_found", None)
        release.set()
        server.wait_until_ready()
        assert client.get("/health/ready").json()["reasons"] == []


def test_draining_finishes_what_runs_and_refuses_the_rest(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path)
    answers: list[httpx.Response] = []
    with LiveServer(settings) as server:
        body = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}

        def send() -> None:
            answers.append(httpx.post(f"{server.url}/edits", json=body, timeout=120))

        sender = threading.Thread(target=send)
        with server.device_held():
            sender.start()
            eventually(lambda: server.waiting == 1)
            assert server.loop is not None
            drained = asyncio.run_coroutine_threadsafe(server.runtime.drain(), server.loop)
            eventually(lambda: server.runtime.state == "draining")
            check(server.client.post("/generate", json={"prompt": "q"}), 503, "draining", None)
            check(server.client.get("/health/ready"), 503, "draining", None)
            assert server.client.get("/health/live").status_code == 200
            assert not drained.done()
        drained.result(120)
        sender.join()
        assert answers[0].status_code == 201


def test_a_target_the_tokenizer_cannot_give_back_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_checkpoint(tmp_path / "lossy")
    tokenizer = folder / "model" / "tokenizer.json"
    described = json.loads(tokenizer.read_text("utf-8"))
    described["normalizer"] = {"type": "Lowercase"}
    tokenizer.write_text(json.dumps(described), "utf-8")
    for part in ("router", "liveedit", "visedit", "fitted"):
        file = folder / f"{part}.json"
        values = json.loads(file.read_text("utf-8"))
        values["backbone_fingerprint"] = ""
        file.write_text(json.dumps(values), "utf-8")
    write_manifest(folder)

    with LiveServer(Settings.load(model=str(folder), data_dir=tmp_path / "data")) as server:
        body = {"image": picture(1), "prompt": "q", "target": "Blue", "verify": "off"}
        response = server.client.post("/edits", json=body)
        check(response, 422, "target_not_encodable", "target")
        assert server.version() == 0
        assert server.client.post("/edits", json=body | {"target": "blue"}).status_code == 201


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "0.0.0.0 is reachable from other machines"),
        ([], {"ERRATA_HOST": "192.168.1.5"}, "192.168.1.5 is reachable"),
        (["--port", "70000"], {}, "port"),
        (["--device", "tpu"], {}, "device"),
        ([], {"ERRATA_PROT": "9000"}, "did you mean ERRATA_PORT?"),
        ([], {"ERRATA_ADMIN_KEY": "hunter2"}, "at least 24 characters"),
        (
            [],
            {"ERRATA_DATABASE_URL": "mysql://db/errata"},
            "mysql is no kind of database",
        ),
    ],
    ids=["host", "host-variable", "port", "device", "misspelt", "admin-key", "database"],
)
def test_a_wrong_setting_is_refused_in_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    environment: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)

    with logging_restored():
        result = CliRunner().invoke(app, ["serve", *flags], env=environment)

    assert result.exit_code == 1
    assert message in result.output
    assert "hunter2" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with logging_restored(), socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port, "--data-dir", str(tmp_path)])

    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


def test_flags_beat_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load().port == 8000
    Path("errata.toml").write_text('port = 1\neditor = "file"\n', "utf-8")
    assert (Settings.load().port, Settings.load().editor) == (1, "file")
    monkeypatch.setenv("ERRATA_PORT", "2")
    monkeypatch.setenv("ERRATA_URL", "http://elsewhere")
    assert (Settings.load().port, Settings.load(port=3, editor=None).port) == (2, 3)
    assert Settings.load(port=3).editor == "file"
    Path("errata.toml").write_text("prot = 1\n", "utf-8")
    with pytest.raises(StartupError, match="did you mean port"):
        Settings.load()


def test_every_setting_is_a_flag_of_serve() -> None:
    # Wide, so that the help is not cut.
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).output
    # Nor is a secret one, for everybody on the machine can read the flags of a process.
    apart = {"allowed-hosts", "admin-key", "webhook-allowed-hosts", "webhook-secret"}
    flags = {name.replace("_", "-") for name in Settings.model_fields} - apart

    assert [
        flag
        for flag in sorted(flags | {"allowed-host", "webhook-allowed-host"})
        if f"--{flag}" not in shown
    ] == []


def test_answers_on_a_kept_alive_connection_do_not_wait_for_an_acknowledgement(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Nagle's algorithm would hold the second packet of an answer back for 40 ms."""
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path / "data", device="cpu")
    with LiveServer(settings) as server:
        assert server.client.get("/health/live").status_code == 200
        told = [
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for connection in server.connections()
        ]
        assert told
        assert all(told)
