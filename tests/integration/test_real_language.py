"""The proving ground from its command line: against a server that says 202 to every edit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import benchmarks.report
from app.settings import Settings
from benchmarks.real_language import main
from tests.support.server import LiveServer, eventually, picture

TOPIC = {
    "prompts": ["which town"],
    "wordings": {"short": ["town"], "other words": ["what place uses it"]},
    "confusables": ["how old is it"],
}


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        editor="fitted",
        edit_wait_s=0,
        refine_steps=1,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def arguments(server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(benchmarks.report, "RESULTS", tmp_path / "results")
    wordings = tmp_path / "wordings.json"
    wordings.write_text(json.dumps({"emblem_town": TOPIC}), "utf-8")
    options = {"data": tmp_path, "work": tmp_path / "work", "wordings": wordings, "limit": 2}
    options |= {"url": server.url, "json": tmp_path / "answers.json", "verify": "off"}
    server.client.post("/admin/rollback", json={"to_version": 0}).raise_for_status()
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def test_it_asks_when_every_edit_is_in_force(
    server: LiveServer, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A confusable fires: the tiny router lets every question about an edited picture through.
    assert main(arguments) == 1

    shown = capsys.readouterr().out
    assert "| reliability | 1.000 | 0.000 | 2 | >= 0.99 | yes |" in shown
    assert "| everyday wordings | 1.000 |  | 4 | >= 0.85 | yes |" in shown
    assert "| everyday wordings, routed to the edit | 1.000 |" in shown
    assert "| text only: kept | 1.000 | 1.000 | 2 | >= 1 | yes |" in shown
    found: dict[str, Any] = json.loads((tmp_path / "answers.json").read_text("utf-8"))
    assert [edit["refusal"] for edit in found["edits"]] == [None, None]
    assert {a["outcome"] for a in found["asked"] if a["kind"] == "short"} == {"applied"}
    assert {a["before"] for a in found["asked"] if a["kind"] == "short"} == {None}
    first = found["figures"][0]
    assert (first["name"], first["value"], first["unedited"]) == ("reliability", 1.0, 0.0)
    assert server.client.get("/versions").json()["active_edits"] == 2
    assert not (tmp_path / "results").exists()


def test_an_edit_that_fails_after_its_request_is_a_refusal(
    server: LiveServer, arguments: list[str], tmp_path: Path
) -> None:
    assert main([*arguments, "--verify", "strict", "--limit", "1"]) == 1

    found = json.loads((tmp_path / "answers.json").read_text("utf-8"))
    assert [edit["refusal"] for edit in found["edits"]] == ["edit_not_effective"]
    assert {a["outcome"] for a in found["asked"]} == {"refused"}
    assert not any(a["hit"] for a in found["asked"])


def test_a_server_with_edits_of_its_own_is_not_measured(
    server: LiveServer, arguments: list[str]
) -> None:
    body = {"image": picture(5), "prompt": "q", "target": "blue", "verify": "off"}
    version = server.version()
    assert server.client.post("/edits", json=body).status_code == 202
    eventually(lambda: server.version() > version)
    with pytest.raises(SystemExit, match="has edits of its own"):
        main(arguments)
