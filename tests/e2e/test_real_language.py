"""A real language model is assembled, served, edited and asked, where the extra is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.real_llava import DecoderMissing, find_decoder

ROOT = Path(__file__).parents[2]
TOPIC = {
    "prompts": ["Which town does this emblem belong to?"],
    "wordings": {"short": ["Town?"], "other words": ["What place uses this coat of arms?"]},
    "confusables": ["How old is the town of this emblem?"],
}

pytestmark = pytest.mark.slow


def test_edits_of_a_real_language_model_hold_over_http(tmp_path: Path) -> None:
    try:
        find_decoder()
    except DecoderMissing as reason:
        pytest.skip(str(reason).splitlines()[0])
    wordings = tmp_path / "wordings.json"
    wordings.write_text(json.dumps({"emblem_town": TOPIC}), "utf-8")
    out = tmp_path / "answers.json"
    options = ["--data", tmp_path, "--work", tmp_path / "work", "--wordings", wordings]
    options += ["--limit", "2", "--json", out, "--threads", "1"]

    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.real_language", *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )

    assert run.returncode in (0, 1), run.stderr
    assert "| reliability | 1.000 | 0.000 | 2 | >= 0.99 | yes |" in run.stdout
    assert "| text only: kept | 1.000 |" in run.stdout
    found = json.loads(out.read_text("utf-8"))
    assert [edit["refusal"] for edit in found["edits"]] == [None, None]
    # In whatever words: an edit that acts answers.
    everyday = [a for a in found["asked"] if a["kind"] in TOPIC["wordings"]]
    assert all(a["hit"] for a in everyday if a["outcome"] == "applied")
