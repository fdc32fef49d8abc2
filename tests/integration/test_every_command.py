"""Every command of `errata`, through the installed script and as a process of its own.

The walk fails when a command has no line in `EXERCISES`. What each command does in detail, its own
tests say.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import COMMANDS
from tests.support.datasets import record, write_dataset
from tests.support.server import LiveServer, png
from tests.support.tiny_model import tiny_image
from tests.support.tiny_questions import write_base, write_corpus

SCRIPT = Path(sys.executable).with_name("errata")
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
LIMIT_S = 1800
"""Only so that a failure ends."""


@dataclass(frozen=True)
class World:
    """Where commands are run: a folder with a picture, a server, and a checkpoint to load."""

    folder: Path
    server: LiveServer
    checkpoint: Path
    picture: str

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"ERRATA_URL": self.server.url, "OMP_NUM_THREADS": "1"}

    def run(
        self, *arguments: str | Path, status: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [SCRIPT, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT_S,
            check=False,
        )
        assert status in (None, done.returncode), done.stdout + done.stderr
        return done

    def edit(self) -> str:
        """The id of a new edit."""
        arguments = ("edit", self.picture, "q", "blue", "--verify", "off")
        return self.run(*arguments).stdout.strip()

    def report(self) -> str:
        """The id of a new report."""
        answer = json.loads(self.run("ask", self.picture, "q", "--json").stdout)
        return self.run("feedback", "report", answer["id"]).stdout.strip()


@pytest.fixture
def world(server: LiveServer, tiny_checkpoint: Path, tmp_path: Path) -> World:
    (tmp_path / "picture.png").write_bytes(png(tiny_image(9000)))
    return World(tmp_path, server, tiny_checkpoint, "picture.png")


def serve(world: World) -> None:
    arguments = ["serve", "--model", str(world.checkpoint), "--port", "0", "--data-dir", "served"]
    process = subprocess.Popen(
        [SCRIPT, *arguments], cwd=world.folder, env=world.environment, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert any("ready on http://" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask(world: World) -> None:
    answer = json.loads(world.run("ask", world.picture, "q", "--json").stdout)
    assert world.run("ask", world.picture, "q").stdout.strip() == answer["text"]


def edit(world: World) -> None:
    made = world.run("edit", world.picture, "q", "one", "--verify", "off", "--json").stdout
    assert json.loads(made)["status"] == "active"


def edits(world: World) -> None:
    made = world.edit()
    assert made in world.run("edits", "--limit", "1").stdout
    assert json.loads(world.run("edits", made, "--json").stdout)["id"] == made


def switching(world: World) -> None:
    made = world.edit()
    version = json.loads(world.run("edits", made, "--json").stdout)["version"]
    assert "rolled_back" in world.run("rollback", made).stdout
    assert "active" in world.run("reinstate", made).stdout
    restored = json.loads(world.run("restore", str(version - 1), "--json").stdout)
    assert restored["rolled_back"] == [made]


def explain(world: World) -> None:
    made = world.edit()
    assert made in world.run("explain", world.picture, "q").stdout


def scope(world: World) -> None:
    made = world.edit()
    shown = world.run("scope", made, "--rephrase", "q q", "--verify", "off")
    assert shown.stdout == "for\tq q\n"


def attribute(world: World) -> None:
    url = ("--url", world.server.url)
    world.run("attribute", world.picture, "q", *url, "--out", "where.png")
    assert (world.folder / "where.png").read_bytes().startswith(b"\x89PNG")


def feedback(world: World) -> None:
    first, second = world.report(), world.report()
    assert first in world.run("feedback", "list").stdout
    assert "resolved" in world.run("feedback", "resolve", first, "--edit", world.edit()).stdout
    assert "dismissed" in world.run("feedback", "dismiss", second).stdout


def keys(world: World) -> None:
    """Refused ones: with the first key this server would be closed to the other tests."""
    refused = world.run("keys", "create", "desk", "--scope", "edit", status=1)
    assert "admin" in refused.stderr
    assert json.loads(world.run("keys", "list", "--json").stdout) == []
    assert "(key_not_found)" in world.run("keys", "revoke", "none", status=1).stderr


def feedback_import(world: World) -> None:
    lines = "prompt,answer,verdict\nWhat is the capital?,Oslo,wrong\n"
    (world.folder / "reports.csv").write_text(lines, "utf-8")
    (told,) = map(json.loads, world.run("feedback", "import", "reports.csv").stdout.splitlines())
    assert told["status"] == "imported"


def moving(world: World) -> None:
    world.edit()
    assert "edits, " in world.run("export", "all.zip").stdout
    assert "in force already" in world.run("import", "all.zip").stderr


def mcp(world: World) -> None:
    """Its input ends at once. `tests/clients/test_mcp.py` tells the story."""
    if importlib.util.find_spec("mcp") is None:
        assert "errata[mcp]" in world.run("mcp", status=1).stderr
    else:
        assert world.run("mcp").stdout == ""


def doctor(world: World) -> None:
    data_dir = world.server.runtime.settings.data_dir
    shown = world.run("doctor", "--data-dir", data_dir, "--model", world.checkpoint)
    assert "0 problems" in shown.stdout


def reencode(world: World) -> None:
    assert "no database" in world.run("reencode", "--data-dir", "nowhere", status=1).stderr


def calibrate(world: World) -> None:
    arguments = ("--model", world.checkpoint / "model", "--device", "cpu", "--dry-run")
    shown = world.run("calibrate", *arguments, "--data-dir", "d", "--question-encoder", "none")
    assert "nothing was written" in shown.stdout + shown.stderr


def sample(world: World) -> None:
    drawn = json.loads(world.run("sample", "--seed", "7", "--out", "emblem.png").stdout)
    assert (world.folder / drawn["file"]).is_file()


def version(world: World) -> None:
    served = json.loads(world.run("version", "--url", world.server.url, "--json").stdout)
    assert served["version"] == world.server.version()


def train(world: World) -> None:
    write_dataset(world.folder / "data", [record(n) for n in range(1, 7)], file="train.json")
    arguments = ("--model", world.checkpoint / "model", "--dataset", "vlkeb", "--path", "data")
    world.run("train", *arguments, "--device", "cpu", "--dry-run", "--out", "trained")
    assert not (world.folder / "trained").exists()


def train_default(world: World) -> None:
    """A run takes days; its stages are tested in `tests/unit/heraldry/test_recipe.py`."""
    shown = world.run("train-default", "--out", "o", "--processes", "0", status=2)
    assert "--processes" in shown.stderr


def train_questions(world: World) -> None:
    base, corpus = write_base(world.folder / "base"), write_corpus(world.folder / "corpus")
    arguments = ("--base", base, "--corpus", corpus, "--steps", "2", "--out", "mine")
    assert "wrote mine" in world.run("train-questions", *arguments).stdout


def train_eyes(world: World) -> None:
    """A run fetches packages; training is tested in `tests/unit/training/test_eyes.py`."""
    shown = world.run("train-eyes", "--out", "mine", "--pictures", "1", status=2)
    assert "--pictures" in shown.stderr


def bench(world: World) -> None:
    assert "liveedit" in world.run("bench", "--list").stdout


def eval_default(world: World) -> None:
    """A tenth of the probes may miss a mark, which is no fault of the command."""
    world.run("eval-default", "--quick", "--out", "figures.json", status=None)
    assert json.loads((world.folder / "figures.json").read_text("utf-8"))


EXERCISES: dict[str, Callable[[World], None]] = {
    "serve": serve,
    "ask": ask,
    "edit": edit,
    "edits": edits,
    "rollback": switching,
    "reinstate": switching,
    "restore": switching,
    "explain": explain,
    "scope": scope,
    "attribute": attribute,
    "feedback report": feedback,
    "feedback list": feedback,
    "feedback resolve": feedback,
    "feedback dismiss": feedback,
    "feedback import": feedback_import,
    "keys create": keys,
    "keys list": keys,
    "keys revoke": keys,
    "export": moving,
    "import": moving,
    "mcp": mcp,
    "doctor": doctor,
    "reencode": reencode,
    "calibrate": calibrate,
    "sample": sample,
    "version": version,
    "train": train,
    "train-default": train_default,
    "train-questions": train_questions,
    "train-eyes": train_eyes,
    "bench": bench,
    "eval-default": eval_default,
}
"""Command -> what runs it."""

SLOW = {"eval_default", "calibrate", "train"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that can be typed, and what typer made of it."""
    for name, (module, _) in COMMANDS.items():
        path, _, attribute_name = module.partition(":")
        holder: typer.Typer = getattr(importlib.import_module(path), attribute_name or "app")
        command: Any = typer.main.get_command(holder)
        if (below := getattr(command, "commands", None)) is None:
            yield name, command
        else:
            yield from ((f"{name} {each}", command) for each, command in below.items())


def test_every_command_has_an_exercise() -> None:
    assert {name for name, _ in commands()} == set(EXERCISES)


@pytest.mark.parametrize(
    "exercise",
    [
        pytest.param(run, id=run.__name__, marks=[pytest.mark.slow] if run.__name__ in SLOW else [])
        for run in dict.fromkeys(EXERCISES.values())
    ],
)
def test_each_runs(exercise: Callable[[World], None], world: World) -> None:
    exercise(world)


def test_each_shows_an_example() -> None:
    without = [
        name for name, command in commands() if f"errata {name} " not in _words(command.help)
    ]
    assert without == []


def test_each_is_documented() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `errata ")]

    def is_there(name: str) -> bool:
        first, _, below = name.partition(" ")
        shown = re.compile(rf"`errata {re.escape(first)}[ `].*\b{re.escape(below)}\b")
        return any(shown.search(line) for line in lines)

    assert [name for name, _ in commands() if not is_there(name)] == []


def test_what_servers_answer_can_be_had_as_json() -> None:
    """Of commands that show what a server says. Those that print one id or token have no need."""
    plain = {"feedback report", "feedback resolve", "feedback dismiss", "keys create"}
    plain |= {"feedback import", "keys revoke", "mcp"}
    lacking = [
        name
        for name, command in commands()
        if any("--url" in each.opts for each in command.params)
        and not any("--json" in each.opts for each in command.params)
    ]
    assert set(lacking) == plain


def _words(text: str | None) -> str:
    return " ".join((text or "").split()) + " "
