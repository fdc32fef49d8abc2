"""When the weights change: edits are stale, never served, and made anew by `errata reencode`."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.settings import Settings
from editing_core.checkpoint import EMBEDDED, write_manifest
from editing_core.heraldry.sample import draw_sample
from tests.integration.test_verified_edits import about, post, said
from tests.support.other_weights import trained_further
from tests.support.server import ROOT, LiveServer, eventually, picture
from tests.support.tiny_model import save_tiny_checkpoint

Start = Callable[..., LiveServer]
Reencode = Callable[..., Result]


@pytest.fixture(scope="module")
def other(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with another expert generator."""
    return trained_further(tiny_checkpoint, tmp_path_factory.mktemp("other") / "w", "liveedit")


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path) -> Start:
    def begin(model: Path = tiny_checkpoint, **fields: Any) -> LiveServer:
        fields = {"model": str(model), "threads": 1} | fields
        return LiveServer(Settings.load(data_dir=tmp_path / "data", **fields))

    return begin


@pytest.fixture
def command(tmp_path: Path) -> Reencode:
    def run(name: str, model: Path, *options: str) -> Result:
        given = ["--model", str(model), "--data-dir", str(tmp_path / "data"), *options]
        return CliRunner().invoke(app, [name, *given])

    return run


def correction(number: int) -> dict[str, Any]:
    """An edit on picture `number`, unverified, since random weights seldom obey."""
    return {"image": picture(number), "prompt": "q", "target": "blue", "verify": "off"}


def edit(server: LiveServer, number: int, **fields: Any) -> str:
    return str(post(server.client, correction(number) | fields)["id"])


def statuses(server: LiveServer) -> dict[str, str]:
    return {e["id"]: e["status"] for e in server.client.get("/edits").json()["data"]}


def ask(server: LiveServer, number: int, **fields: Any) -> dict[str, Any]:
    body = {"image": picture(number), "prompt": "q", "max_new_tokens": 8} | fields
    answer: dict[str, Any] = server.client.post("/generate", json=body).json()
    return answer


def applied(server: LiveServer, number: int, **fields: Any) -> list[str]:
    return [a["edit_id"] for a in ask(server, number, **fields)["applied"]]


def reencoded(server: LiveServer) -> list[dict[str, Any]]:
    events = server.client.get("/admin/events?limit=200").json()["data"]
    return [event for event in events if event["type"] == "reencoded"]


def database(folder: Path, statement: str) -> list[Any]:
    file = folder / "data" / "errata.db"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize("part", ["liveedit", "router"])
def test_edits_of_the_shipped_model_live_on_under_other_weights(
    start: Start, command: Reencode, tmp_path: Path, part: str
) -> None:
    bodies = [about(draw_sample(seed)) for seed in (500, 501, 502)]
    with start(EMBEDDED) as server:
        first, older, undone = (post(server.client, body) for body in bodies)
        newer = post(server.client, bodies[1] | {"target": "quite another"})
        server.client.post(f"/admin/edits/{undone['id']}/rollback")
        before = server.client.get("/admin/events").json()["data"]
    changed = trained_further(EMBEDDED, tmp_path / "changed", part)

    with start(changed) as server:
        assert list(statuses(server).values()) == ["stale", "rolled_back", "stale", "stale"]
        versions = server.client.get("/versions").json()
        assert (versions["active_edits"], versions["stale_edits"]) == (0, 3)
        for body in bodies:
            unedited = {"image": body["image"], "prompt": body["prompt"], "edits": "off"}
            base = server.client.post("/generate", json=unedited).json()["text"]
            assert said(server.client, body) == base

    done = command("reencode", changed)
    assert done.exit_code == 0, done.output
    assert "made 4 of 4 anew; version 9" in done.output
    assert f"made by another {'router' if part == 'router' else 'editor liveedit'}" in done.output

    with start(changed) as server:
        assert list(statuses(server).values()) == ["active", "rolled_back", "superseded", "active"]
        assert server.client.get("/versions").json()["stale_edits"] == 0
        assert said(server.client, bodies[0]) == first["target"]
        assert said(server.client, bodies[1]) == "quite another"
        view = server.client.get(f"/edits/{newer['id']}").json()
        assert (view["verified"], view["verified_version"]) == (True, 8)
        assert (view["version"], view["after"]) == (newer["version"], "quite another")
        alone = server.client.get(f"/edits/{older['id']}").json()
        assert (alone["verified"], alone["verified_version"]) == (True, 0)
        event = view["history"][-1]
        assert event["changes"] == [{"edit_id": newer["id"], "from": "stale", "to": "active"}]
        made = event["reencoding"]
        assert (made["verified"], made["after"]) == (True, "quite another")
        name = f"{'router' if part == 'router' else 'editor'}_fingerprint"
        assert made["from"][name] != made["to"][name]
        assert server.client.get("/admin/events").json()["data"][:5] == before

        # Earlier versions are answered by the artifacts there are now.
        then = bodies[1] | {"at_version": 2}
        asked = {name: then[name] for name in ("image", "prompt", "at_version")}
        answer = server.client.post("/generate", json=asked).json()
        assert [a["edit_id"] for a in answer["applied"]] == [older["id"]]
        back = server.client.post(f"/admin/edits/{undone['id']}/reinstate").json()
        assert back["edit"]["status"] == "active"
        assert said(server.client, bodies[2]) == undone["target"]

    checked = command("doctor", changed)
    assert (checked.exit_code, "0 problems" in checked.output) == (0, True), checked.output
    again = command("reencode", changed)
    assert (again.exit_code, again.output) == (0, "version 10: 0 stale edits\n")


def test_a_run_that_was_cut_short_goes_on(
    start: Start, command: Reencode, other: Path, tmp_path: Path
) -> None:
    with start() as server:
        made = [edit(server, number) for number in range(3)]
    # What a killed run leaves: some edits committed, the others untouched.
    assert command("reencode", other, "--verify", "off", "--edit", made[1]).exit_code == 0
    with start(other) as server:
        assert list(statuses(server).values()) == ["stale", "active", "stale"]
        assert [applied(server, number) for number in range(3)] == [[], [made[1]], []]

    done = command("reencode", other, "--edit", made[1])
    assert (done.exit_code, f"edit {made[1]} is not stale" in done.output) == (0, True)
    rest = command("reencode", other, "--verify", "off")
    assert "made 2 of 2 anew; version 6" in rest.output
    with start(other) as server:
        assert [applied(server, number) for number in range(3)] == [[i] for i in made]
        assert [e["reencoding"]["edit_id"] for e in reencoded(server)] == [
            made[1],
            made[0],
            made[2],
        ]
    assert database(tmp_path, "SELECT count(*) FROM artifacts") == [(6,)]


def test_a_dry_run_only_lists(start: Start, command: Reencode, other: Path) -> None:
    with start() as server:
        made = edit(server, 1, prompt="what [b]is[/b] it")
    listed = command("reencode", other, "--dry-run")
    assert listed.exit_code == 0
    assert f"{made}  1        active  made by another editor liveedit  liveedit" in listed.output
    assert "what [b]is[/b] it" in listed.output
    with start(other) as server:
        assert statuses(server) == {made: "stale"}
    same = command("reencode", other, "--dry-run", "--edit", "nobody")
    assert (same.exit_code, "There is no edit 'nobody'" in same.output) == (1, True)


def test_pending_edits_are_left_for_the_next_server(
    start: Start, command: Reencode, other: Path, tmp_path: Path
) -> None:
    with start() as server:
        made = edit(server, 1)
    with start(edit_wait_s=0) as server, server.device_held():
        asked = [server.client.post("/edits", json=correction(number)) for number in (2, 3, 4)]
        *pending, unreadable = [response.json()["id"] for response in asked]
        server.drain()
    # A start would have this one fail at once: a job that nobody touched shows that there was none.
    spoilt = "request = json_set(request, '$.verify', 'maybe')"
    database(tmp_path, f"UPDATE edit_jobs SET {spoilt} WHERE id = '{unreadable}'")
    kept = database(tmp_path, "SELECT * FROM edit_jobs ORDER BY id")
    assert len(kept) == 3

    assert command("reencode", other, "--dry-run").exit_code == 0
    done = command("reencode", other, "--verify", "off")
    assert "made 1 of 1 anew; version 2" in done.output
    assert database(tmp_path, "SELECT * FROM edit_jobs ORDER BY id") == kept

    with start(other) as server:
        eventually(lambda: "pending" not in statuses(server).values())
        assert list(statuses(server)) == [unreadable, *reversed(pending), made]
        assert list(statuses(server).values()) == ["failed", *["active"] * 3]
        versions = [server.client.get(f"/edits/{i}").json()["version"] for i in pending]
        assert versions == [3, 4]
        assert [applied(server, number) for number in (1, 2, 3)] == [[i] for i in (made, *pending)]
    assert database(tmp_path, "SELECT id FROM edit_jobs") == [(unreadable,)]


def test_a_folder_without_a_database_is_refused_and_left_alone(
    command: Reencode, other: Path, tmp_path: Path
) -> None:
    refused = command("reencode", other)
    assert (refused.exit_code, "there is no database at" in refused.output) == (1, True)
    assert not (tmp_path / "data").exists()


def test_what_fails_its_trial_stays_stale_and_is_reported(
    start: Start, command: Reencode, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_REFINE_STEPS", "0")
    with start() as server:
        bad = edit(server, 1, target="words that random weights never say")
        good = edit(server, 2)
    failed = command("reencode", other)
    assert failed.exit_code == 1
    assert f"errata: edit {bad} stays stale: " in failed.output
    assert "(edit_not_effective); before: " in failed.output

    kept = command("reencode", other, "--verify", "report")
    assert kept.exit_code == 0
    with start(other) as server:
        assert statuses(server) == {good: "active", bad: "active"}
        assert server.client.get(f"/edits/{bad}").json()["verified"] is False


def test_an_edit_whose_picture_is_damaged_stays_stale_and_holds_up_nobody(
    start: Start, command: Reencode, other: Path, tmp_path: Path
) -> None:
    with start() as server:
        bad, good = edit(server, 1), edit(server, 2)
    whose = f"digest = (SELECT image_digest FROM edits WHERE id = '{bad}')"
    database(tmp_path, f"UPDATE images SET png = x'00' WHERE {whose}")
    failed = command("reencode", other, "--verify", "off")
    assert failed.exit_code == 1
    assert f"edit {bad} stays stale: The stored picture of edit {bad} is damaged." in failed.output
    with start(other) as server:
        assert statuses(server) == {good: "active", bad: "stale"}


def test_another_backbone_without_the_editor_takes_the_default_one(
    start: Start, command: Reencode, tmp_path: Path
) -> None:
    with start() as server:
        made = edit(server, 1, editor="visedit")
    backbone = save_tiny_checkpoint(tmp_path / "backbone", seed=1)
    for path in backbone.glob("visedit.*"):
        path.unlink()
    write_manifest(backbone)
    refused = command("reencode", backbone, "--editor", "visedit")
    assert (refused.exit_code, "has no visedit.safetensors" in refused.output) == (1, True)
    done = command("reencode", backbone, "--verify", "off")
    assert done.exit_code == 0, done.output
    assert "made by another backbone" in done.output
    assert "liveedit instead" in done.output
    with start(backbone) as server:
        view = server.client.get(f"/edits/{made}").json()
        assert (view["editor"], view["status"]) == ("liveedit", "active")
        assert view["history"][-1]["reencoding"]["from"]["editor"] == "visedit"
        assert applied(server, 1) == [made]


def test_a_stale_edit_may_be_rolled_back_but_not_put_back(
    start: Start, command: Reencode, other: Path
) -> None:
    with start() as server:
        made = edit(server, 1)
    with start(other) as server:
        path = f"/admin/edits/{made}"
        undone = server.client.post(f"{path}/rollback").json()
        assert (undone["changed"], undone["edit"]["status"]) == (True, "rolled_back")
        refused = server.client.post(f"{path}/reinstate")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edit_stale")
        assert "errata reencode" in refused.json()["error"]["hint"]
        assert server.version() == 2
        forced = server.client.post(f"{path}/reinstate", json={"force": True}).json()
        assert (forced["changed"], forced["edit"]["status"]) == (True, "stale")
        assert applied(server, 1) == []
        busy = command("reencode", other)
        assert (busy.exit_code, "in use by another server" in busy.output) == (1, True)
    assert command("reencode", other, "--verify", "off").exit_code == 0
    with start(other) as server:
        assert applied(server, 1) == [made]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE artifacts SET data = x'00'", "DELETE FROM artifacts"],
    ids=["changed", "deleted"],
)
def test_a_damaged_newest_artifact_is_quarantined_not_replaced_by_the_old(
    start: Start, command: Reencode, other: Path, tmp_path: Path, statement: str
) -> None:
    with start() as server:
        made = edit(server, 1)
    assert command("reencode", other, "--verify", "off").exit_code == 0
    database(tmp_path, f"{statement} WHERE version = 2")
    for model in (other, None):
        with start(model) if model else start() as server:
            assert statuses(server) == {made: "quarantined"}
            assert applied(server, 1) == []
    assert command("doctor", other).exit_code == 1


def test_doctor_lists_what_is_stale(start: Start, command: Reencode, other: Path) -> None:
    with start() as server:
        made = edit(server, 1)
        copy = Path(server.runtime.settings.model)
    told = command("doctor", other)
    assert told.exit_code == 0, told.output
    assert f"edit {made} is stale: made by another editor liveedit" in told.output
    assert "stale" not in command("doctor", copy).output
    unknown = command("doctor", Path("no/such-model"))
    assert (unknown.exit_code, "not compared" in unknown.output) == (0, True)


def test_the_old_weights_are_stale_once_the_new_have_made_it_anew(
    start: Start, command: Reencode, other: Path, tiny_checkpoint: Path
) -> None:
    with start() as server:
        made = edit(server, 1)
        before = ask(server, 1)["text"]
    assert command("reencode", other, "--verify", "off").exit_code == 0
    with start() as server:
        assert statuses(server) == {made: "stale"}
    assert command("reencode", tiny_checkpoint, "--verify", "off").exit_code == 0
    with start() as server:
        assert ask(server, 1)["text"] == before
        assert [e["version"] for e in reencoded(server)] == [2, 3]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(
    start: Start, command: Reencode, other: Path, tmp_path: Path
) -> None:
    with start() as server:
        made = [edit(server, number) for number in range(20)]
    program = ["-c", "import app.cli; app.cli.main()", "reencode", "--verify", "off"]
    where = ["--model", str(other), "--data-dir", str(tmp_path / "data")]
    run = subprocess.Popen(
        [sys.executable, *program, *where],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: database(tmp_path, "SELECT version FROM head") > [(22,)])
    run.kill()
    run.wait()

    assert command("reencode", other, "--verify", "off").exit_code == 0
    assert command("doctor", other).exit_code == 0
    with start(other) as server:
        events = server.client.get("/admin/events?after=20&limit=200").json()["data"]
        assert [e["reencoding"]["edit_id"] for e in events] == made
        assert {*statuses(server).values()} == {"active"}


def test_the_log_says_how_many_are_stale_why_and_what_to_do(
    start: Start, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with start() as server:
        made = [edit(server, number) for number in range(7)]
        server.client.post(f"/admin/edits/{made[0]}/rollback")
    caplog.clear()
    with start(other):
        (told,) = [r.getMessage() for r in caplog.records if "stale" in r.getMessage()]
    assert told.startswith("6 edits are stale and not served (6 made by another editor liveedit): ")
    assert f"{', '.join(made[1:6])} and 1 more; stop the server and run `errata reencode`" in told


def scope_of(server: LiveServer, edit_id: str) -> list[str]:
    found: list[str] = server.client.get(f"/edits/{edit_id}").json()["rephrases"]
    return found


def test_an_edit_made_anew_keeps_its_scope_and_gets_earlier_ones_back(
    start: Start, command: Reencode, other: Path
) -> None:
    with start() as server:
        edit_id = edit(server, 1)
        body = {"rephrases": ["again?"], "verify": "off"}
        assert server.client.post(f"/edits/{edit_id}/scope", json=body).json()["version"] == 2

    with start(other) as server:
        refused = server.client.post(f"/edits/{edit_id}/scope", json={"rephrases": ["more"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edit_not_active")
        for version, words in ((1, []), (2, ["again?"])):
            done = server.client.post("/admin/rollback", json={"to_version": version}).json()
            assert done["rescoped"] == [edit_id]
            assert scope_of(server, edit_id) == words
        assert statuses(server) == {edit_id: "stale"}

    done = command("reencode", other, "--verify", "off")
    assert (done.exit_code, "made 1 of 1 anew; version 5" in done.output) == (0, True), done.output

    with start(other) as server:
        assert (statuses(server), scope_of(server, edit_id)) == ({edit_id: "active"}, ["again?"])
        # Keys of the first scope were of other weights: they are made, not fetched.
        done = server.client.post("/admin/rollback", json={"to_version": 1}).json()
        assert (done["rescoped"], done["version"]) == ([edit_id], 6)
        expected: tuple[dict[str, str], list[str], list[str]]
        expected = ({edit_id: "active"}, [], [edit_id])
        assert (statuses(server), scope_of(server, edit_id), applied(server, 1)) == expected
    with start(other) as server:
        assert (statuses(server), scope_of(server, edit_id), applied(server, 1)) == expected
        assert applied(server, 1, at_version=2) == [edit_id]
    told = command("doctor", other)
    assert (told.exit_code, "0 problems" in told.output) == (0, True), told.output
