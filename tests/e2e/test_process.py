"""The server as a process: killed, refused a second time, told to stop in the middle of an answer.

One story in one test, since starting a process costs seconds.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.support.server import ServerProcess, eventually, logging_restored, picture, png
from tests.support.tiny_model import tiny_image


def test_an_acknowledged_edit_survives_a_kill_and_a_stop_cuts_nothing(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    arguments = ("--model", tiny_checkpoint, "--data-dir", data, "--device", "cpu")
    correction = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}
    question = {"image": picture(1), "prompt": "q", "max_new_tokens": 12}
    key = {"Idempotency-Key": "once"}

    with ServerProcess(*arguments, cwd=tmp_path) as first:
        made = first.request("POST", "/edits", json=correction, headers=key)
        first.process.kill()
        assert made.status_code == 201, made.text

    with ServerProcess(*arguments, cwd=tmp_path) as second:
        edit = made.json()
        assert second.request("GET", f"/edits/{edit['id']}").json()["status"] == "active"
        answer = second.request("POST", "/generate", json=question).json()
        assert [a["edit_id"] for a in answer["applied"]] == [edit["id"]]
        replay = second.request("POST", "/edits", json=correction, headers=key)
        assert replay.content == made.content

        with logging_restored():
            refused = CliRunner().invoke(app, ["serve", *map(str, arguments), "--port", "0"])
        assert refused.exit_code == 1
        assert f"the data directory {data} is in use by another server" in refused.output
        assert f"process {second.process.pid}" in refused.output
        _commands_talk_to_it(second.url, tmp_path)
        checked = CliRunner().invoke(app, ["doctor", "--data-dir", str(data)])
        assert (checked.exit_code, "0 problems" in checked.output) == (0, True)

        lines = _stop_in_mid_stream(second, question | {"max_new_tokens": 120, "stream": True})
        assert lines[-1] == "data: [DONE]"
        assert len(lines) > 2
        assert second.process.returncode == 0

    announced = [line for line in second.lines if not line.startswith("{")]
    assert len(announced) == 1
    assert announced[0].startswith(f"errata: ready on {second.url} (model ")
    logged = "".join(second.lines)
    assert json.loads(second.lines[0])["level"]
    assert correction["image"][-40:] not in logged
    assert "blue" not in logged


def _commands_talk_to_it(url: str, folder: Path) -> None:
    image = folder / "picture.png"
    image.write_bytes(png(tiny_image(5)))
    made = CliRunner().invoke(
        app, ["edit", str(image), "q", "blue", "--verify", "off", "--url", url]
    )
    assert made.exit_code == 0, made.output
    asked = CliRunner().invoke(app, ["ask", str(image), "q", "--url", url, "--explain"])
    applied = json.loads(asked.stdout)["applied"]
    assert [a["edit_id"] for a in applied] == [made.stdout.strip()]
    refused = CliRunner().invoke(app, ["edit", str(image), "q", " ", "--url", url])
    assert (refused.exit_code, "invalid_field" in refused.output) == (1, True)


def _stop_in_mid_stream(server: ServerProcess, body: dict[str, Any]) -> list[str]:
    """The lines of a stream, with SIGTERM sent after the first."""
    lines: list[str] = []
    stopper = threading.Thread(target=server.terminate)
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=120) as response:
        for line in response.iter_lines():
            if line and not lines:
                stopper.start()
            lines += [line] if line else []
    stopper.join()
    return lines


def test_an_edit_that_was_promised_survives_a_kill(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--device", "cpu")
    # Nothing that so many steps could teach a random model; it is refined until it is killed.
    correction = {
        "image": picture(1),
        "prompt": "q",
        "target": "sphinx of black quartz, judge my vow! 4,1;7",
        "verify": "report",
    }
    key = {"Idempotency-Key": "once"}

    forever = ("--edit-wait-s", "0", "--refine-steps", "1000")
    with ServerProcess(*arguments, *forever, cwd=tmp_path) as first:
        promised = first.request("POST", "/edits", json=correction, headers=key)
        first.process.kill()
        assert promised.status_code == 202, promised.text
    edit = promised.json()
    checked = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "data")])
    assert "version 0: 0 edits, 0 active, 1 pending, 0 problems" in checked.output

    with ServerProcess(*arguments, "--refine-steps", "0", cwd=tmp_path) as second:
        path = f"/edits/{edit['id']}"
        eventually(lambda: second.request("GET", path).json()["status"] == "active")
        assert second.request("GET", path).json()["version"] == 1
        replay = second.request("POST", "/edits", json=correction, headers=key)
        assert (replay.status_code, replay.json()["id"]) == (201, edit["id"])


def test_a_server_that_cannot_start_says_why_and_ends(tmp_path: Path) -> None:
    with ServerProcess("--model", tmp_path / "nowhere", "--data-dir", "d", cwd=tmp_path) as server:
        assert server.process.wait(120) == 1
    told = [line for line in server.lines if not line.startswith("{")]
    assert len(told) == 1
    assert told[0].startswith("errata: cannot start: ")
    assert "nowhere" in told[0]


def test_an_engine_of_its_own_ends_with_its_server_and_by_nobody_else(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--model", tiny_checkpoint, "--data-dir", tmp_path / "data", "--device", "cpu")
    correction = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}
    question = {"image": picture(1), "prompt": "q", "max_new_tokens": 12}
    secret = "a secret of two dozen letters"

    with monkeypatch.context() as patch:
        patch.setenv("ERRATA_ADMIN_KEY", secret)
        key = {"Authorization": f"Bearer {secret}"}
        with ServerProcess(*arguments, "--engine", "process", cwd=tmp_path) as first:
            made = first.request("POST", "/edits", json=correction, headers=key)
            assert made.status_code == 201, made.text
            engine = _engine_of(first)
            for number in (signal.SIGTERM, signal.SIGINT):  # what a whole group may be sent
                os.kill(engine, number)
            answer = first.request("POST", "/generate", json=question, headers=key).json()
            assert [a["edit_id"] for a in answer["applied"]] == [made.json()["id"]]
            assert secret.encode() not in Path(f"/proc/{engine}/environ").read_bytes()
            first.process.kill()
    eventually(lambda: _is_gone(engine))

    with ServerProcess(*arguments, "--engine", "process", cwd=tmp_path) as second:
        again = second.request("POST", "/generate", json=question).json()
        assert again["text"] == answer["text"]
        engine = _engine_of(second)
        lines = _stop_in_mid_stream(second, question | {"max_new_tokens": 120, "stream": True})
        assert lines[-1] == "data: [DONE]"
        assert second.process.returncode == 0
    assert _is_gone(engine)
    told = [line for line in second.lines if not line.startswith("{")]
    assert len(told) == 1, "the engine's lines are the server's"


def _engine_of(server: ServerProcess) -> int:
    """Its process, by the lines that it wrote to the server's log."""
    written = (json.loads(line) for line in server.lines if line.startswith("{"))
    found: int = next(line["engine"] for line in written if "engine" in line)
    return found


def _is_gone(process: int) -> bool:
    """Whether it has ended, if nobody waited for it too."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
