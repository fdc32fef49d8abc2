"""A start goes on with what the last server knew, and only where nobody wrote to the database."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_restart import Start, database, edit, start, state
from tests.support.server import LiveServer, picture
from tests.support.store import alter

__all__ = ["database", "start"]


def checkpoint_file(database: Path) -> Path:
    return database.with_name(f"{database.name}.checkpoint")


TAKEN = "its checkpoint is taken"
KEY = {"Idempotency-Key": "k"}
BODY = {"image": picture(3), "prompt": "q", "target": "blue", "verify": "off"}


def fill(server: LiveServer) -> list[Any]:
    """Some of everything that a checkpoint holds; what a client sees of it, and a replay."""
    client = server.client
    first = edit(server, rephrases=["which"], not_for=["how many"])
    client.post("/edits", json=BODY, headers=KEY)
    undone = edit(server, image=picture(2), target="far away")
    client.post(f"/admin/edits/{undone['id']}/rollback")
    change = {"rephrases": ["what colour"], "verify": "off"}
    assert client.post(f"/edits/{first['id']}/scope", json=change).status_code == 200
    edit(server, target="red", supersedes=[undone["id"]])
    return seen(server)


def seen(server: LiveServer) -> list[Any]:
    replay = server.client.post("/edits", json=BODY, headers=KEY)
    near = {"image": picture(1), "prompt": "q", "explain": True}
    found = server.client.post("/generate", json=near).json()
    return [*state(server), replay.content, found.get("candidates")]


def test_what_was_known_is_known_again(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with start() as server:
        before = fill(server)
    with caplog.at_level(logging.INFO), start() as server:
        assert TAKEN in caplog.text
        assert seen(server) == before
        edit(server, image=picture(5))
        after = seen(server)
    caplog.clear()
    with caplog.at_level(logging.INFO), start() as server:
        assert TAKEN in caplog.text
        assert seen(server) == after


def _touch(database: Path) -> None:
    told = database.stat()
    os.utime(database, ns=(told.st_atime_ns, told.st_mtime_ns + 1))


def _put_time_back(database: Path) -> None:
    told = database.stat()
    alter(database, "UPDATE edits SET note = 'x' WHERE note = 'nobody has this'")
    os.utime(database, ns=(told.st_atime_ns, told.st_mtime_ns))


def _cut(database: Path) -> None:
    file = checkpoint_file(database)
    file.write_bytes(file.read_bytes()[:-7])


def _change_one_byte(database: Path) -> None:
    file = checkpoint_file(database)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _garbage(database: Path) -> None:
    checkpoint_file(database).write_bytes(b"\xff\n{}\n")


def _remove(database: Path) -> None:
    checkpoint_file(database).unlink()


@pytest.mark.parametrize("do", [_touch, _put_time_back, _cut, _change_one_byte, _garbage, _remove])
def test_everything_is_read_where_it_cannot_be_believed(
    start: Start,
    database: Path,
    caplog: pytest.LogCaptureFixture,
    do: Callable[[Path], None],
) -> None:
    with start() as server:
        edit(server)
        before = state(server)
    do(database)
    with caplog.at_level(logging.INFO), start() as server:
        assert TAKEN not in caplog.text
        assert state(server) == before


def test_an_edit_changed_on_disk_is_found_when_it_is_needed(
    start: Start, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While a server runs nobody reads everything; what a question needs is checked."""
    with start() as server:
        made = edit(server)
    with start() as server:
        alter(database, "UPDATE edits SET target = 'what nobody said'")
        asked = server.client.post(
            "/generate", json={"image": picture(1), "prompt": "q", "max_new_tokens": 4}
        )
        assert (asked.status_code, asked.json()["applied"]) == (200, [])
        assert f"edit {made['id']} is quarantined" in caplog.text
        listed = server.client.get("/edits", params={"status": "quarantined"}).json()["data"]
        assert [each["id"] for each in listed] == [made["id"]]
