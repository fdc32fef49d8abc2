"""Missing, empty, swapped, cut, damaged or restored: whatever lies where the database should be is
named, and nothing begins anew unless somebody says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.errors import ServiceError, StartupError
from app.runtime import Runtime
from app.settings import Settings
from app.store.anchor import Anchor, read_anchor, write_anchor
from app.store.records import digest_of
from tests.integration.test_restart import edit
from tests.support.old_schema import written_at
from tests.support.server import DEADLINE_S, LiveServer, ServerProcess, eventually, picture
from tests.support.store import alter

Start = Callable[[], LiveServer]


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory as a killed server leaves it, with a log; and `backup.db`, older, beside."""
    folder = tmp_path_factory.mktemp("whole")
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=folder / "data", device="cpu")
    with LiveServer(settings) as server:
        for number in range(3):
            edit(server, prompt=f"p{number}")
        with (
            contextlib.closing(sqlite3.connect(folder / "data" / "errata.db")) as connection,
            contextlib.closing(sqlite3.connect(folder / "backup.db")) as backup,
        ):
            connection.backup(backup)
        for number in range(4):
            edit(server, prompt=f"p{number}", image=picture(number + 2), target="red")
        shutil.copytree(folder / "data", folder / "killed")
    return folder


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A data directory that a server left properly."""
    return Path(shutil.copytree(whole / "data", tmp_path / "data"))


@pytest.fixture
def killed(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / "killed", tmp_path / "data"))


def refusal(folder: Path) -> str:
    """What a start is refused with."""
    with pytest.raises(StartupError) as caught:
        Runtime.open(Settings.load(data_dir=folder))
    return str(caught.value)


def doctor(folder: Path, model: Path) -> tuple[int, str]:
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(folder), "--model", str(model)])
    assert isinstance(told.exception, SystemExit | None), told.exception
    assert "Traceback" not in told.output
    return told.exit_code, told.output


def commands(told: str) -> list[str]:
    """The commands that a message ends with."""
    return ["rm " + part.split(";")[0] for part in told.split("rm ")[1:]]


def start(folder: Path, model: Path) -> LiveServer:
    return LiveServer(Settings.load(model=str(model), data_dir=folder, device="cpu"))


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("spoil", [emptied, Path.unlink], ids=["empty", "missing"])
def test_an_emptied_database_is_no_new_one_until_somebody_says_so(
    data: Path, tiny_checkpoint: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(data / "errata.db")
    told = refusal(data)
    assert str(data / "errata.db") in told
    assert "version 7" in told
    assert doctor(data, tiny_checkpoint)[0] == 1
    assert refusal(data) == told  # nothing was begun by asking

    (command,) = commands(told)
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as a user would
    with start(data, tiny_checkpoint) as server:
        assert server.version() == 0
        edit(server)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"no database at all, " * 500, "file is not a database"),
        (None, "is no database of Errata"),
    ],
    ids=["empty", "garbage", "foreign"],
)
def test_a_file_of_another_kind_is_refused_and_left_as_it_is(
    tmp_path: Path, tiny_checkpoint: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "errata.db"
    if content is None:
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE recipes (name)")
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    assert words in refusal(tmp_path)
    status, told = doctor(tmp_path, tiny_checkpoint)
    assert (status, words in told) == (1, True), told
    assert file.read_bytes() == before


def test_another_database_in_its_place_is_refused(
    data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with start(tmp_path / "other", tiny_checkpoint) as server:
        edit(server)
    shutil.copy(tmp_path / "other" / "errata.db", data)
    told = refusal(data)
    assert "is another one than was here" in told
    assert "another one" in doctor(data, tiny_checkpoint)[1]
    subprocess.run(commands(told)[0], shell=True, check=True)  # noqa: S602 - as a user would
    with start(data, tiny_checkpoint) as server:
        assert server.version() == 1


def test_a_backup_of_an_older_release_is_refused_where_a_newer_database_was(
    data: Path, tmp_path: Path
) -> None:
    old = written_at("0004", data / "errata.db", tmp_path)
    before = old.read_bytes()
    old.replace(data / "errata.db")
    assert "is another one than was here" in refusal(data)
    assert (data / "errata.db").read_bytes() == before


def test_a_head_that_is_no_number_is_named(data: Path, tiny_checkpoint: Path) -> None:
    alter(data / "errata.db", "UPDATE head SET version = 'x'")
    assert "the head is x" in refusal(data)
    assert "the head is x" in doctor(data, tiny_checkpoint)[1]


def test_a_dropped_table_is_named(data: Path, tiny_checkpoint: Path) -> None:
    alter(data / "errata.db", "DROP TABLE idempotency")
    assert "lacks its table idempotency" in refusal(data)
    assert "lacks its table idempotency" in doctor(data, tiny_checkpoint)[1]


def test_an_older_database_is_refused_until_the_anchor_is_removed(
    data: Path, whole: Path, tiny_checkpoint: Path
) -> None:
    shutil.copy(whole / "backup.db", data / "errata.db")
    told = refusal(data)
    assert "the head is 3, and version 7 was committed" in told
    assert "the head is 3, and version 7 was committed" in doctor(data, tiny_checkpoint)[1]
    subprocess.run(commands(told)[0], shell=True, check=True)  # noqa: S602 - as a user would
    with start(data, tiny_checkpoint) as server:
        assert server.version() == 3
        edit(server)
    assert doctor(data, tiny_checkpoint)[0] == 0


def test_a_killed_server_starts_again(killed: Path, tiny_checkpoint: Path) -> None:
    assert doctor(killed, tiny_checkpoint)[0] == 0
    with start(killed, tiny_checkpoint) as server:
        assert server.version() == 7


def test_a_server_killed_between_a_commit_and_its_anchor_starts_again(
    killed: Path, tiny_checkpoint: Path
) -> None:
    anchor = killed / "errata.db.anchor"
    now = read_anchor(killed / "errata.db.anchor")
    assert now is not None
    with contextlib.closing(sqlite3.connect(killed / "errata.db")) as connection:
        query = "SELECT seal FROM seals WHERE kind = 'events' AND version = 6"
        (seal,) = connection.execute(query).fetchone()
    anchor.unlink()
    write_anchor(killed / "errata.db.anchor", Anchor(now.store_id, 6, seal))
    assert doctor(killed, tiny_checkpoint)[0] == 0
    with start(killed, tiny_checkpoint) as server:
        assert server.version() == 7
    assert read_anchor(killed / "errata.db.anchor") == now


@pytest.mark.parametrize("content", [b"", b"{", b'{"store_id": 1}', b"\xff" * 512])
def test_a_damaged_anchor_is_named(data: Path, tiny_checkpoint: Path, content: bytes) -> None:
    (data / "errata.db.anchor").write_bytes(content)
    assert "errata.db.anchor cannot be read" in refusal(data)
    assert "errata.db.anchor cannot be read" in doctor(data, tiny_checkpoint)[1]


@pytest.mark.parametrize("left", [0.0, 0.5, 0.9])
def test_a_write_ahead_log_cut_short_is_noticed(
    killed: Path, tiny_checkpoint: Path, left: float
) -> None:
    log = killed / "errata.db-wal"
    os.truncate(log, int(log.stat().st_size * left))
    told = refusal(killed)
    assert "version 7 was committed" in told or "no database of Errata" in told
    status, told = doctor(killed, tiny_checkpoint)
    assert status == 1
    assert "version 7 was committed" in told or "no database of Errata" in told


def test_a_backup_restored_beside_the_log_of_another_is_refused_and_not_spoilt(
    killed: Path, whole: Path, tiny_checkpoint: Path
) -> None:
    shutil.copy(whole / "backup.db", killed / "errata.db")
    with contextlib.closing(sqlite3.connect(whole / "backup.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(killed / "vacuumed.db")])
    (killed / "vacuumed.db").replace(killed / "errata.db")
    backup = (killed / "errata.db").read_bytes()
    told = refusal(killed)
    assert "the log of the one before is still beside it" in told
    status, said = doctor(killed, tiny_checkpoint)
    assert (status, "is still beside it" in said) == (1, True), said
    assert (killed / "errata.db").read_bytes() == backup

    subprocess.run(commands(told)[-1], shell=True, check=True)  # noqa: S602 - as a user would
    subprocess.run(commands(refusal(killed))[0], shell=True, check=True)  # noqa: S602
    with start(killed, tiny_checkpoint) as server:
        assert server.version() == 3


def test_doctor_reads_a_backup_that_cannot_be_written(
    whole: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copy(whole / "backup.db", tmp_path / "errata.db")
    (tmp_path / "errata.db").chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        status, told = doctor(tmp_path, tiny_checkpoint)
        assert (status, "version 3: 3 edits" in told) == (0, True), told
        assert [path.name for path in tmp_path.iterdir()] == ["errata.db"]
    finally:
        tmp_path.chmod(0o700)


def test_doctor_names_a_picture_of_garbage_whose_digest_was_made_right(
    data: Path, tiny_checkpoint: Path
) -> None:
    with contextlib.closing(sqlite3.connect(data / "errata.db")) as connection, connection:
        connection.execute(
            "UPDATE images SET png = ?, png_digest = ?", (b"garbage", digest_of(b"garbage"))
        )
    status, told = doctor(data, tiny_checkpoint)
    assert (status, "its picture is missing or damaged" in told) == (1, True), told


@pytest.mark.parametrize("seed", range(6))
def test_overwritten_pages_are_named_by_doctor_and_by_the_server(
    data: Path, tiny_checkpoint: Path, seed: int
) -> None:
    file = data / "errata.db"
    content = bytearray(file.read_bytes())
    pages = len(content) // 4096
    for page in range(1 + seed, pages, 6):
        content[4096 * page : 4096 * (page + 1)] = bytes([seed * 37 % 256]) * 4096
    file.write_bytes(content)
    status, told = doctor(data, tiny_checkpoint)
    assert (status, "errata" in told) == (1, True), told
    failure = failure_of(data, tiny_checkpoint)
    assert "damaged" in failure or "cannot open the database" in failure


def failure_of(folder: Path, model: Path) -> str:
    """Why a server does not start: refused at once, or once it reads what is there."""
    settings = Settings.load(model=str(model), data_dir=folder, device="cpu")
    try:
        server = LiveServer(settings, wait=False)
    except StartupError as error:
        return str(error)
    with server:
        eventually(lambda: server.runtime.state != "starting")
        assert isinstance(server.runtime.failure, StartupError | ServiceError)
        return str(server.runtime.failure)


def test_a_malformed_database_is_refused_in_one_line(data: Path, tiny_checkpoint: Path) -> None:
    file = data / "errata.db"
    file.write_bytes(file.read_bytes()[: 4096 * 9])
    with ServerProcess("--data-dir", data, "--model", tiny_checkpoint, cwd=data) as server:
        assert server.process.wait(DEADLINE_S) == 1
    told = "".join(server.lines)
    assert "malformed" in told
    assert "Traceback" not in told
