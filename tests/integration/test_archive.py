"""`errata export` and `errata import`: edits carried from one server to another, each once."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.commands import batch
from app.settings import Settings
from tests.integration.conftest import Edit
from tests.support.server import LiveServer, picture

_seeds = itertools.count(8000)
STUBBORN = "sphinx of black quartz, judge my vow! 4,1;7"


@pytest.fixture(scope="module")
def other(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Where edits are made again. Without refinement, random weights do not obey a long target."""
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("other"),
        device="cpu",
        refine_steps=0,
    )
    with LiveServer(settings) as live:
        yield live


def errata(*arguments: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def tag() -> str:
    """Edits of one test."""
    return f"tag-{next(_seeds)}"


@pytest.fixture
def archive(server: LiveServer, edit: Edit, tag: str, tmp_path: Path) -> Path:
    """Three edits in force on two pictures, and one that is not; the third replaces the second."""
    first, second = picture(next(_seeds)), picture(next(_seeds))
    edit(image=first, tags=[tag], note="monday", rephrases=["q q"], not_for=["x"])
    old = edit(image=second, tags=[tag], target="one")
    edit(image=second, tags=[tag], prompt="another", target="two", supersedes=[old["id"]])
    taken_back = edit(image=first, tags=[tag], prompt="taken back")
    server.client.post(f"/admin/edits/{taken_back['id']}/rollback")
    file = tmp_path / "edits.zip"
    shown = errata("export", file, "--status", "all", "--tag", tag, "--url", server.url)
    assert f"{file}: 4 edits, 2 pictures" in shown.stdout
    return file


def imported(file: Path, other: LiveServer, *more: str, status: int = 0) -> list[dict[str, Any]]:
    shown = errata("import", file, "--json", "--url", other.url, *more, status=status)
    return [json.loads(line) for line in shown.stdout.splitlines()]


def listed(other: LiveServer, tag: str) -> list[dict[str, Any]]:
    edits: list[dict[str, Any]] = other.client.get(f"/edits?tag={tag}").json()["data"]
    return edits[::-1]


def test_edits_move_to_another_server(archive: Path, other: LiveServer, tag: str) -> None:
    before = other.version()
    dry = imported(archive, other, "--dry-run")
    assert [each["status"] for each in dry] == ["to be made"] * 3 + ["left out"]
    assert other.version() == before

    made = imported(archive, other, "--verify", "off")
    assert [each["status"] for each in made] == ["active"] * 3 + ["left out"]
    first, old, new = listed(other, tag)
    assert (first["note"], first["rephrases"], first["not_for"]) == ("monday", ["q q"], ["x"])
    assert (old["status"], new["supersedes"]) == ("superseded", [old["id"]])
    assert first["id"] == made[0]["id"] != made[0]["from"]


def test_each_is_made_once_however_often_it_is_run(
    archive: Path, other: LiveServer, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, make = other.version(), batch.make_once
    calls = itertools.count()

    def dies(*arguments: Any, **more: Any) -> dict[str, Any]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments, **more)

    monkeypatch.setattr(batch, "make_once", dies)
    imported(archive, other, "--verify", "off", status=130)
    assert other.version() == version + 2
    monkeypatch.setattr(batch, "make_once", make)

    again = imported(archive, other, "--verify", "off")
    assert [each["status"] for each in again] == ["present", "present", "active", "left out"]
    assert other.version() == version + 3
    # By now one is superseded, so only its key says that it was made.
    last = errata("import", archive, "--url", other.url, "--verify", "report")
    assert "2 in force already, 1 made before, 1 left out, 0 refused" in last.stderr
    assert len(listed(other, tag)) == 3
    assert other.version() == version + 3


@pytest.mark.parametrize("kind", ["import", "edit"])
def test_a_process_that_is_killed_makes_no_edit_twice(
    server: LiveServer, other: LiveServer, edit: Edit, tag: str, tmp_path: Path, kind: str
) -> None:
    lines = []
    for number in range(5):
        image = picture(next(_seeds))
        edit(image=image, tags=[tag])
        fields = {"image": image, "prompt": f"q {number}", "target": "blue", "verify": "off"}
        lines.append(json.dumps(fields | {"tags": [tag]}))
    file = tmp_path / "edits"
    arguments = [str(file), "--url", other.url]
    if kind == "import":
        errata("export", file, "--tag", tag, "--url", server.url)
        command = ["import", *arguments, "--verify", "off", "--json"]
    else:
        file.write_text("\n".join(lines), encoding="utf-8")
        command = ["edit", "--batch", *arguments]
    script = Path(sys.executable).with_name("errata")
    with subprocess.Popen(
        [script, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # the first one is made; the second is on its way
        process.kill()
    assert listed(other, tag)

    errata(*command)
    made = listed(other, tag)
    assert len(made) == 5
    assert {each["status"] for each in made} == {"active"}


def test_what_is_refused_is_listed(
    server: LiveServer, other: LiveServer, edit: Edit, tag: str, tmp_path: Path
) -> None:
    edit(target=STUBBORN, tags=[tag])  # unverified
    file = tmp_path / "one.zip"
    errata("export", file, "--tag", tag, "--url", server.url)
    assert "is there already" in errata("export", file, "--url", server.url, status=1).stderr
    errata("export", file, "--tag", tag, "--url", server.url, "--force")

    shown = errata("import", file, "--url", other.url, status=1)
    assert "edit_not_effective" in shown.stdout
    assert "0 of 1 edits are made, 1 refused" in shown.stderr
    (kept,) = imported(file, other, "--verify", "report")
    assert kept["status"] == "active"


def test_the_format_is_as_documented(archive: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        manifest = json.loads(opened.read("errata.json"))
        lines = [json.loads(line) for line in opened.read("edits.jsonl").splitlines()]
        pictures = [name for name in opened.namelist() if name.startswith("pictures/")]
        assert opened.read(pictures[0]).startswith(b"\x89PNG")
    assert (manifest["format"], manifest["version"], manifest["edits"]) == ("errata-edits", 1, 4)
    assert [line["version"] for line in lines] == sorted(line["version"] for line in lines)
    assert {line["image"] for line in lines} == set(pictures)


def spoilt(archive: Path, name: str, data: bytes | None) -> Path:
    """A copy in which one file is other than it was, or gone."""
    target = archive.with_name("spoilt.zip")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(target, "w") as copy:
        for each in source.namelist():
            if each != name:
                copy.writestr(each, source.read(each))
        if data is not None:
            copy.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("errata.json", None, "errata.json is missing"),
        ("errata.json", b"{}", "errata.json: format"),
        ("errata.json", b'{"format": "x", "version": 1, "exported_at": "", "edits": 1}', "'x'"),
        (
            "errata.json",
            b'{"format": "errata-edits", "version": 2, "exported_at": "", "edits": 1}',
            "newer release",
        ),
        ("edits.jsonl", None, "edits.jsonl is missing"),
        ("edits.jsonl", b"", "has 0 edits and says that it has 4"),
        ("edits.jsonl", b"{}\n", "line 1: id"),
        ("edits.jsonl", b" " * 2_000_000, "line 1 is too long"),
    ],
)
def test_a_damaged_archive_sends_nothing(
    archive: Path, other: LiveServer, name: str, data: bytes | None, message: str
) -> None:
    version = other.version()
    file = spoilt(archive, name, data)
    assert message in errata("import", file, "--url", other.url, status=1).stderr
    assert other.version() == version


def test_every_flipped_byte_is_noticed_or_harmless(archive: Path, other: LiveServer) -> None:
    """Names, sizes and times in the directory of a zip are given twice, so some do no harm."""
    whole, version = archive.read_bytes(), other.version()
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = archive.with_name("damaged.zip")
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        result = CliRunner().invoke(
            app, ["import", str(damaged), "--dry-run", "--url", other.url], catch_exceptions=False
        )
        assert result.exit_code in (0, 1)
    assert other.version() == version


def test_pictures_stay_inside_the_archive(archive: Path, other: LiveServer) -> None:
    with zipfile.ZipFile(archive) as opened:
        lines = opened.read("edits.jsonl")
        a_picture = next(n for n in opened.namelist() if n.startswith("pictures/"))
    outside = spoilt(archive, "edits.jsonl", lines.replace(b"pictures/", b"../../etc/"))
    assert "image" in errata("import", outside, "--url", other.url, status=1).stderr
    gone = spoilt(archive, a_picture, None)
    assert "is missing" in errata("import", gone, "--url", other.url, status=1).stderr
    huge = spoilt(archive, a_picture, bytes(17 * 1024 * 1024))
    assert "is too large" in errata("import", huge, "--url", other.url, status=1).stderr


def test_no_archive(tmp_path: Path, server: LiveServer) -> None:
    assert "cannot read" in errata("import", tmp_path / "none.zip", status=1).stderr
    text = tmp_path / "text.zip"
    text.write_text("no zip", encoding="utf-8")
    assert "is no archive" in errata("import", text, status=1).stderr
    nowhere = tmp_path / "no" / "folder.zip"
    assert "cannot write" in errata("export", nowhere, "--url", server.url, status=1).stderr
    assert list(tmp_path.iterdir()) == [text]
