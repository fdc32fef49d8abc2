"""The flag benchmark from its command line: against a server on a socket, and in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import benchmarks.report
from benchmarks.real_images import main
from tests.integration.conftest import Edit
from tests.support.flags import flag_records, write_flags
from tests.support.server import LiveServer


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "results"
    monkeypatch.setattr(benchmarks.report, "RESULTS", folder)
    return folder


@pytest.fixture
def flags(tmp_path: Path) -> Path:
    """Two of the drawn flags: a model of random weights answers every question at full length."""
    records = [record for record in flag_records() if record["iso2"] in ("AA", "CC")]
    return write_flags(tmp_path / "data", records)


def figures(file: Path, run: str) -> dict[str, Any]:
    found = json.loads(file.read_text("utf-8"))["runs"][run]["figures"]
    return {figure["name"]: figure for figure in found}


def check(found: dict[str, Any]) -> None:
    """What holds of any model, even one with random weights."""
    assert found["image locality"]["editing_off"] == found["text locality"]["editing_off"] == 1.0
    assert found["text locality"]["value"] == 1.0
    assert found["reliability"]["count"] == 4


def test_over_http_figures_are_written_and_the_server_is_left_clean(
    server: LiveServer, flags: Path, results: Path
) -> None:
    arguments = ["--data", str(flags), "--url", server.url, "--verify", "off"]
    assert main(arguments) in (0, 1)
    (written,) = results.glob("*.md")
    assert written.name.endswith("real-images-http-off.md")
    text = written.read_text("utf-8")
    assert "## Run: together" in text
    assert "## Run: half-split" in text
    assert "| machine |" in text
    check(figures(written.with_suffix(".json"), "together"))
    halves = figures(written.with_suffix(".json"), "half-split")
    unchanged = [f["count"] for name, f in halves.items() if name.endswith("unchanged")]
    assert sum(unchanged) == 2
    assert server.client.get("/versions").json()["active_edits"] == 0
    assert server.version() == 4 + 1 + 2 + 1  # edits, rolled back, half of them, rolled back


def test_refusals_over_http_carry_their_code(
    server: LiveServer, flags: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    arguments = ["--data", str(flags), "--url", server.url, "--json", str(file), "--limit", "2"]
    assert main([*arguments, "--runs", "together"]) == 1
    found = json.loads(file.read_text("utf-8"))
    refused = found["runs"]["together"]["refusals"]
    assert set(refused) <= {"edit_not_effective", "edit_conflicts"}
    accepted = found["runs"]["together"]["refinement"]["accepted"]
    assert accepted + sum(refused.values()) == 2
    assert list(found["runs"]) == ["together"]


def test_a_server_with_edits_of_its_own_is_not_measured(
    server: LiveServer, flags: Path, edit: Edit
) -> None:
    made = edit()
    with pytest.raises(SystemExit, match="has edits of its own"):
        main(["--data", str(flags), "--url", server.url])
    server.client.post(f"/admin/edits/{made['id']}/rollback").raise_for_status()


def test_in_process_a_look_writes_only_where_told(
    tiny_checkpoint: Path, flags: Path, results: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    arguments = ["--data", str(flags), "--in-process", "--model", str(tiny_checkpoint)]
    arguments += ["--limit", "4", "--verify", "off", "--json", str(file)]
    assert main(arguments) in (0, 1)
    assert not results.exists()
    check(figures(file, "together"))


@pytest.mark.slow
def test_a_server_of_its_own_is_started_and_stopped(
    tiny_checkpoint: Path, flags: Path, tmp_path: Path
) -> None:
    file = tmp_path / "found.json"
    arguments = ["--data", str(flags), "--model", str(tiny_checkpoint), "--threads", "1"]
    arguments += ["--limit", "2", "--verify", "off", "--json", str(file), "--runs", "together"]
    assert main(arguments) in (0, 1)
    assert figures(file, "together")["text locality"]["value"] == 1.0
