"""The scripts of `docs/examples`, as processes, before the model that ships."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from tests.support.readme import installed_client
from tests.support.server import ROOT, LiveServer, picture

EXAMPLES = ROOT / "docs" / "examples"
SAMPLES = ROOT / "docs" / "samples"
QUESTION = "What is the capital?"

Run = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", question_encoder="shipped"
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def run(server: LiveServer, tmp_path: Path) -> Iterator[Run]:
    """What a script prints, `errata` being what an installation would put there and nothing else.

    Afterwards no edit is in force.
    """
    installed = installed_client(tmp_path)

    def script(name: str, *arguments: str, status: int = 0, url: str = server.url) -> str:
        done = subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments],
            cwd=tmp_path,
            env=os.environ | {"ERRATA_URL": url, "PYTHONPATH": installed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    yield script
    server.client.post("/admin/rollback", json={"to_version": 0})


def write(file: Path, *rows: tuple[object, ...]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(rows)


def test_a_batch_is_compared_and_checked_every_night(
    server: LiveServer, run: Run, tmp_path: Path
) -> None:
    heart, star = SAMPLES / "heart.png", SAMPLES / "star.png"
    write(
        tmp_path / "corrections.csv",
        ("picture", "question", "answer", "note"),
        (heart, QUESTION, "Newhaven", "by hand"),
        (star, QUESTION, " ", ""),
    )
    assert "1 refused" in run("batch_from_csv.py", "corrections.csv", "results.csv", status=1)
    with (tmp_path / "results.csv").open(encoding="utf-8") as opened:
        made, refused = csv.DictReader(opened)
    assert (made["status"], made["before"]) == ("active", "Didinton")
    assert "invalid_field" in refused["why"]
    version = server.version()
    run("batch_from_csv.py", "corrections.csv", "results.csv", status=1)
    assert server.version() == version == 1

    write(tmp_path / "questions.csv", ("picture", "question"), (heart, QUESTION), (star, QUESTION))
    shown = run("edited_against_base.py", "questions.csv")
    assert "Didinton" in shown
    assert f"Newhaven  ({made['edit']})" in shown
    assert "1 of 2 answers differ" in shown

    assert "1 edits, 0 failures" in run("nightly_regression.py", "night.md")
    body = {"rephrases": ["Which city is it?"], "not_for": ["Who is the mayor?"]}
    changed = server.client.post(f"/edits/{made['edit']}/scope", json=body)
    assert changed.status_code == 200, changed.text
    assert "1 edits, 0 failures" in run("nightly_regression.py", "night.md")


def test_an_edit_that_does_not_hold_is_reported(
    tiny_checkpoint: Path, run: Run, tmp_path: Path
) -> None:
    """Random weights, unrefined, do not obey a long target."""
    settings = Settings.load(
        model=str(tiny_checkpoint), data_dir=tmp_path / "data", device="cpu", refine_steps=0
    )
    with LiveServer(settings) as live:
        body = {"image": picture(), "prompt": "q", "verify": "off"}
        target = "sphinx of black quartz, judge my vow! 4,1;7 <b>"
        weak = live.client.post("/edits", json=body | {"target": target}).json()
        for name in ("night.html", "night.md"):
            shown = run("nightly_regression.py", name, status=1, url=live.url)
            assert "1 edits, 1 failures" in shown
    page = (tmp_path / "night.html").read_text("utf-8")
    assert weak["id"] in page
    assert "&lt;b&gt;" in page
    assert f"| {weak['id']} | q | sphinx" in (tmp_path / "night.md").read_text("utf-8")


def blocks(page: str) -> list[str]:
    """The page's Python blocks that use the client."""
    python = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
    return [block for block in python if "errata." in block and "openai" not in block]


def test_the_readme_tells_the_story_in_python(run: Run, tmp_path: Path) -> None:
    (block,) = blocks("README.md")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "story.py").write_text(block, encoding="utf-8")
    assert run(str(tmp_path / "story.py")) == "Newhaven\n"


def test_the_page_about_clients_can_be_run(server: LiveServer, run: Run, tmp_path: Path) -> None:
    first, stream = blocks("docs/clients.md")
    (tmp_path / "flag.png").write_bytes((SAMPLES / "heart.png").read_bytes())
    (tmp_path / "first.py").write_text(first, encoding="utf-8")
    assert run(str(tmp_path / "first.py")) == "Didinton\n"
    (tmp_path / "stream.py").write_text(
        f"from errata import Client\nerrata = Client()\n{stream}errata.close()\n", encoding="utf-8"
    )
    assert run(str(tmp_path / "stream.py")) == "Didinton[]\n"


def test_every_example_is_documented_and_run() -> None:
    page = (ROOT / "docs" / "clients.md").read_text("utf-8")
    here = Path(__file__).read_text("utf-8")
    for script in EXAMPLES.glob("*.py"):
        assert f"(examples/{script.name})" in page
        assert f'"{script.name}"' in here
