"""Where a server writes: in the place that was named, and in no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.runtime import Runtime
from app.settings import Settings
from tests.support.server import logging_restored

NAMES = [
    "a%2Fb",
    "a%20b",
    "what?",
    "a#b",
    "100%",
    "it's",
    'a"b',
    "é 犬",
    "a&b=c",
    "?mode=ro",
    "+ +",
]


def opened_and_closed(settings: Settings) -> None:
    runtime = Runtime.open(settings)
    asyncio.run(runtime.close())


@pytest.mark.parametrize("name", NAMES)
def test_the_database_lies_in_the_data_directory_however_that_is_called(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    opened_and_closed(Settings.load(data_dir=folder))

    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "errata.db").is_file()


def test_two_data_directories_never_share_a_database(tmp_path: Path) -> None:
    for name in NAMES:
        opened_and_closed(Settings.load(data_dir=tmp_path / name))
    files = {path.stat().st_ino for path in tmp_path.glob("*/errata.db")}

    assert len(files) == len(NAMES)


def test_a_database_url_is_read_as_a_url(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a%20b%3Fc.db"
    opened_and_closed(Settings.load(data_dir=tmp_path / "data", database_url=url))

    assert (tmp_path / "a b?c.db").is_file()


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///", "sqlite:////x.db?mode=ro"])
def test_a_database_url_that_names_no_file_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with logging_restored():
        result = CliRunner().invoke(app, ["serve", "--database-url", url])

    assert result.exit_code == 1
    assert "database_url: it must name a file" in result.output
    assert list(tmp_path.iterdir()) == []
