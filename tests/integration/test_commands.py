"""The commands that a person runs against a server, through the installed entry point's program."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import COMMANDS, app
from app.commands import batch
from tests.integration.conftest import Edit
from tests.support.server import LiveServer, png
from tests.support.tiny_model import tiny_image

_seeds = itertools.count(7000)


@pytest.fixture(autouse=True)
def here(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_URL", server.url)
    monkeypatch.setattr(batch, "POLL_S", 0.01)


def errata(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def read(*arguments: str) -> Any:
    return json.loads(errata(*arguments, "--json").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    shown = errata(command, "--help").stdout
    assert "Usage:" in shown
    assert len(shown.splitlines()) > 5


def test_edits_are_listed_and_shown(edit: Edit) -> None:
    made = edit(note="monday", tags=["flags"])
    assert made["id"] in errata("edits", "--tag", "flags").stdout
    (listed,) = read("edits", "--limit", "1")
    assert listed["id"] == made["id"]
    shown = errata("edits", made["id"]).stdout
    assert "monday" in shown
    assert "edit_created" in shown
    assert read("edits", made["id"])["note"] == "monday"
    assert "(edit_not_found)" in errata("edits", "none", status=1).stderr


def test_as_many_edits_as_are_wanted(edit: Edit) -> None:
    ids = [edit()["id"] for _ in range(3)]
    assert [e["id"] for e in read("edits", "--limit", "3")] == ids[::-1]
    assert [e["id"] for e in read("edits", "--limit", "2")] == ids[:0:-1]


def test_what_is_printed_cannot_move_the_cursor(edit: Edit) -> None:
    edit(prompt="q\u001b[2J\u202eevil")
    assert "\u001b[2J" not in errata("edits", "--limit", "1").stdout
    assert "\u202e" not in errata("edits", "--limit", "1").stdout


def test_taken_back_put_back_restored(server: LiveServer, edit: Edit) -> None:
    before = server.version()
    made = edit()
    assert "rolled_back" in errata("rollback", made["id"], "--reason", "wrong").stdout
    assert "nothing to change" in errata("rollback", made["id"]).stdout
    assert "active" in errata("reinstate", made["id"]).stdout
    assert "1 rolled back" in errata("restore", str(before)).stdout
    assert read("edits", made["id"])["history"][1]["reason"] == "wrong"
    assert "(version_not_found)" in errata("restore", "99999", status=1).stderr


def test_a_question_is_explained(server: LiveServer, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(png(tiny_image(4321)))
    made = errata("edit", str(picture), "q", "blue", "--verify", "off").stdout.strip()
    shown = errata("explain", str(picture), "q").stdout
    assert made in shown
    assert "applied" in shown
    then = read("explain", str(picture), "q", "--at-version", "0")
    assert then["version"] == 0


def test_versions(server: LiveServer) -> None:
    assert "torch" in errata("version").stdout
    assert set(read("version")) >= {"errata", "python"}
    assert read("version", "--url", server.url)["version"] == server.version()


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    """Three edits and one that is refused; the pictures lie beside the file."""
    lines = []
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(tiny_image(next(_seeds))))
        target = "blue" if number != 2 else "sphinx of black quartz, judge my vow! 4,1;7"
        verify = {} if number == 2 else {"verify": "off"}
        lines.append({"image": f"{number}.png", "prompt": "q", "target": target, **verify})
    file = tmp_path / "corrections.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n", encoding="utf-8")
    return file


def results(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_batch_makes_each_edit_once_however_often_it_is_run(
    server: LiveServer, corrections: Path
) -> None:
    first = errata("edit", "--batch", str(corrections), status=1)
    assert [r["status"] for r in results(first)] == ["active", "active", "refused", "active"]
    assert results(first)[2]["error"]["code"] == "edit_not_effective"
    assert "3 of 4 edits are made" in first.stderr
    version = server.version()
    again = errata("edit", "--batch", str(corrections), status=1)
    assert [r.get("id") for r in results(again)] == [r.get("id") for r in results(first)]
    assert server.version() == version


def test_a_batch_that_was_killed_goes_on_where_it_stopped(
    server: LiveServer, corrections: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, made = server.version(), batch.make_once

    def dies(*arguments: Any, **more: Any) -> dict[str, Any]:
        result = made(*arguments, **more)
        monkeypatch.setattr(batch, "make_once", nothing)
        return result

    def nothing(*_arguments: Any, **_more: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "make_once", dies)
    errata("edit", "--batch", str(corrections), status=130)
    assert server.version() == version + 1
    monkeypatch.setattr(batch, "make_once", made)
    errata("edit", "--batch", str(corrections), status=1)
    assert server.version() == version + 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: no JSON"),
        ("[]", "line 1: an object"),
        ('\n{"image": "gone.png"}', "line 2: cannot read"),
    ],
)
def test_a_batch_that_cannot_be_read_sends_nothing(
    server: LiveServer, tmp_path: Path, text: str, message: str
) -> None:
    file, version = tmp_path / "bad.jsonl", server.version()
    file.write_text(text, encoding="utf-8")
    assert message in errata("edit", "--batch", str(file), status=1).stderr
    assert server.version() == version


def test_one_edit_or_a_batch(tmp_path: Path) -> None:
    assert "name a picture" in errata("edit", status=1).stderr
    assert "--batch takes all" in errata("edit", "p.png", "--batch", "f", status=1).stderr
