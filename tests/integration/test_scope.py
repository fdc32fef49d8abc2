"""Scope by example over HTTP: wordings added to an edit and taken away, verified, reversible.

One server has frozen features for a router, so every wording is a key: what is added is routed, and
what is taken away is not. Its weights are random, so nothing is verified there; that is done on
the model that ships.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from editing_core.first_start import measure
from editing_core.first_start.material import Material
from editing_core.heraldry.sample import draw_sample
from tests.integration.conftest import answer
from tests.integration.test_errors_table import check
from tests.integration.test_verified_edits import about
from tests.support.server import LiveServer, ServerProcess, picture

WORDINGS = [
    "Capital city?",
    "how many coins are there",
    "Whose flag may that be, please?",
    "Is it raining in the valley tonight?",
    "Name three things that are not in this picture.",
    "x",
]
"""One of them, at least, is none that a random model takes for the edit's prompt."""

_seeds = itertools.count(7000)


@pytest.fixture(scope="module")
def parts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that holds a plain model; what is measured of it needs few pictures."""
    folder = tmp_path_factory.mktemp("plain") / "model"
    shutil.copytree(tiny_checkpoint / "model", folder)

    def small(backbone: object, **given: object) -> Material:
        return Material(backbone, subjects=6, rows=6, **given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measure, "Material", small)
        yield folder


@pytest.fixture
def start(parts: Path, tmp_path: Path) -> Callable[[], LiveServer]:
    def begin() -> LiveServer:
        return LiveServer(Settings.load(model=str(parts), data_dir=tmp_path / "d", device="cpu"))

    return begin


@pytest.fixture(scope="module")
def server(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings.load(model=str(parts), data_dir=data_dir, device="cpu", store_timeout_s=0.2)
    with LiveServer(settings) as live:
        yield live


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The model that ships. Experts are not refined: what leaks is refused."""
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", threads=1, refine_steps=0
    )
    with LiveServer(settings) as live:
        yield live.client


@pytest.fixture
def image() -> str:
    return picture(next(_seeds))


def make(client: httpx.Client, image: str, **fields: Any) -> dict[str, Any]:
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields
    response = client.post("/edits", json=body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def scope(client: httpx.Client, edit: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = client.post(f"/edits/{edit['id']}/scope", json={"verify": "off"} | body)
    assert response.status_code == 200, response.text
    outcome: dict[str, Any] = response.json()
    return outcome


def fires(client: httpx.Client, image: str, prompt: str, **fields: Any) -> list[str]:
    found = answer(client, image, prompt=prompt, **fields)["applied"]
    return [each["edit_id"] for each in found]


def missed(client: httpx.Client, image: str) -> str:
    """A wording in which nothing fires."""
    return next(text for text in WORDINGS if not fires(client, image, text))


def lists(client: httpx.Client, edit: dict[str, Any]) -> tuple[list[str], list[str]]:
    found = client.get(f"/edits/{edit['id']}").json()
    return found["rephrases"], found["not_for"]


def history(client: httpx.Client, edit: dict[str, Any]) -> list[str]:
    return [event["type"] for event in client.get(f"/edits/{edit['id']}").json()["history"]]


def test_a_wording_that_was_missed_is_added_and_rolled_back(server: LiveServer, image: str) -> None:
    client = server.client
    edit = make(client, image)
    wording = missed(client, image)
    before = server.version()

    outcome = scope(client, edit, rephrases=[f"  {wording.replace(' ', '   ')} "], reason="missed")

    assert (outcome["version"], outcome["changed"]) == (before + 1, True)
    assert outcome["edit"]["rephrases"] == [wording]
    assert outcome["edit"]["version"] == edit["version"]
    assert fires(client, image, wording) == [edit["id"]]
    assert fires(client, image, "q") == [edit["id"]]
    assert fires(client, image, wording, at_version=before) == []
    (event,) = client.get(f"/admin/events?after={before}").json()["data"]
    assert (event["type"], event["reason"]) == ("scope_changed", "missed")
    assert event["changes"] == [{"edit_id": edit["id"], "from": "active", "to": "active"}]
    assert [s["rephrases"] for s in event["scopes"]] == [[wording]]

    done = client.post("/admin/rollback", json={"to_version": before}).json()

    assert done == {
        "version": before + 2,
        "changed": True,
        "rolled_back": [],
        "reinstated": [],
        "superseded": [],
        "rescoped": [edit["id"]],
    }
    assert lists(client, edit) == ([], [])
    assert fires(client, image, wording) == []
    assert fires(client, image, "q") == [edit["id"]]
    assert fires(client, image, wording, at_version=before + 1) == [edit["id"]]
    assert history(client, edit) == ["edit_created", "scope_changed", "restored"]

    client.post("/admin/rollback", json={"to_version": before + 1})
    assert fires(client, image, wording) == [edit["id"]]


def test_what_is_so_already_changes_nothing(server: LiveServer, image: str) -> None:
    client = server.client
    edit = make(client, image, rephrases=["one"], not_for=["two"])
    assert (edit["rephrases"], edit["not_for"]) == (["one"], ["two"])
    version = server.version()
    same: list[dict[str, Any]] = [
        {"rephrases": ["one"]},
        {"rephrases": ["q"]},
        {"not_for": [" two "]},
        {"remove_rephrases": ["three"], "remove_not_for": ["four"]},
    ]
    for body in same:
        outcome = scope(client, edit, **body)
        assert (outcome["version"], outcome["changed"]) == (version, False)
    assert server.version() == version
    restored = client.post("/admin/rollback", json={"to_version": version}).json()
    assert (restored["changed"], "rescoped" in restored) == (False, False)


def test_wordings_are_taken_away_and_change_lists(server: LiveServer, image: str) -> None:
    client = server.client
    edit = make(client, image)
    wording = missed(client, image)
    scope(client, edit, rephrases=[wording, "other"], not_for=["kept"])
    assert lists(client, edit) == ([wording, "other"], ["kept"])

    scope(client, edit, remove_rephrases=[wording], not_for=[wording])

    assert lists(client, edit) == (["other"], ["kept", wording])
    assert fires(client, image, wording) == []
    scope(client, edit, remove_not_for=["kept", wording])
    assert lists(client, edit) == (["other"], [])


def test_a_superseded_edit_comes_back_with_its_scope(server: LiveServer, image: str) -> None:
    client = server.client
    older = make(client, image)
    wording = missed(client, image)
    newer = make(client, image, target="red")
    scope(client, older, rephrases=[wording])
    assert fires(client, image, wording) == []
    client.post(f"/admin/edits/{newer['id']}/rollback")
    assert fires(client, image, wording) == [older["id"]]


def test_a_rollback_of_everything_leaves_the_scope_to_be_brought_back(
    server: LiveServer, image: str
) -> None:
    client = server.client
    edit = make(client, image)
    wording = missed(client, image)
    widened = scope(client, edit, rephrases=[wording])["version"]
    scope(client, edit, remove_rephrases=[wording])
    client.post("/admin/rollback", json={"to_version": 0})
    assert fires(client, image, "q") == []

    done = client.post("/admin/rollback", json={"to_version": widened}).json()

    assert edit["id"] in done["reinstated"]
    assert edit["id"] in done["rescoped"]
    assert fires(client, image, wording) == [edit["id"]]


def test_a_restart_and_a_kill_keep_it(
    parts: Path, start: Callable[[], LiveServer], tmp_path: Path, image: str
) -> None:
    with start() as server:  # measured, so that the process below need not
        pass
    arguments = ("--model", parts, "--data-dir", tmp_path / "d", "--device", "cpu")
    with ServerProcess(*arguments, cwd=tmp_path) as process:
        client = process.client
        assert client is not None, process.lines
        edit = make(client, image)
        wording = missed(client, image)
        scope(client, edit, rephrases=[wording], not_for=["never"])
        process.process.kill()
        process.process.wait(60)
    for _ in range(2):
        with start() as server:
            assert lists(server.client, edit) == ([wording], ["never"])
            assert fires(server.client, image, wording) == [edit["id"]]
            assert fires(server.client, image, wording, at_version=1) == []
            assert server.version() == 2
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "d")])
    assert (told.exit_code, "0 problems" in told.output) == (0, True), told.output
    with start() as server:
        server.client.post("/admin/rollback", json={"to_version": 1})
    with start() as server:
        assert lists(server.client, edit) == ([], [])
        assert fires(server.client, image, wording) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE artifacts SET data = x'00' WHERE version = 2",
        "DELETE FROM artifacts WHERE version = 2",
        "UPDATE events SET scopes = NULL WHERE version = 2",
    ],
    ids=["damaged", "deleted", "forgotten"],
)
def test_damage_to_the_new_keys_is_found(
    start: Callable[[], LiveServer], tmp_path: Path, image: str, statement: str
) -> None:
    with start() as server:
        edit = make(server.client, image)
        scope(server.client, edit, rephrases=["other"])
    database = tmp_path / "d" / "errata.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TRIGGER events_refuse_update")
        connection.execute(statement)
    told = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "d")])
    assert told.exit_code == 1
    if "scopes" in statement:
        assert "event 2 is damaged" in told.output
    else:
        with start() as server:
            assert server.client.get(f"/edits/{edit['id']}").json()["status"] == "quarantined"
            # Its first keys are whole, and an earlier version is answered with them.
            assert fires(server.client, image, "q", at_version=1) == [edit["id"]]


def assert_not_active(response: httpx.Response) -> None:
    error = response.json()["error"]
    found = (response.status_code, error["code"], error["param"], error["retryable"])
    assert found == (409, "edit_not_active", "id", False)
    assert error["hint"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "rephrases"),
        ({"rephrases": [], "not_for": []}, 400, "missing_field", "rephrases"),
        ({"rephrases": [""]}, 400, "invalid_field", "rephrases"),
        ({"not_for": [" \t"]}, 400, "invalid_field", "not_for"),
        ({"remove_not_for": ["  "]}, 400, "invalid_field", "remove_not_for"),
        ({"rephrases": "one"}, 400, "invalid_field", "rephrases"),
        ({"not_for": [1]}, 400, "invalid_field", "not_for"),
        ({"rephrases": ["one", " one "]}, 400, "invalid_field", "rephrases"),
        ({"not_for": ["é", "e\u0301"]}, 400, "invalid_field", "not_for"),
        ({"rephrases": [f"w{n}" for n in range(33)]}, 400, "invalid_field", "rephrases"),
        ({"not_for": [f"w{n}" for n in range(32)]}, 400, "invalid_field", "not_for"),
        ({"not_for": ["q"]}, 400, "invalid_field", "not_for"),
        ({"not_for": [" q "]}, 400, "invalid_field", "not_for"),
        ({"not_for": ["is so"]}, 400, "invalid_field", "not_for"),
        ({"rephrases": ["x"], "not_for": ["x"]}, 400, "invalid_field", "not_for"),
        ({"rephrases": ["x"], "remove_rephrases": ["x"]}, 400, "invalid_field", "rephrases"),
        ({"rephrases": ["why " * 4000]}, 422, "context_too_long", "prompt"),
        ({"not_for": ["why " * 4000]}, 422, "context_too_long", "prompt"),
        ({"prompt": "other"}, 400, "unknown_field", "prompt"),
        ({"rephrases": ["x"], "verify": "maybe"}, 400, "invalid_field", "verify"),
        ({"rephrases": ["x"], "reason": 1}, 400, "invalid_field", "reason"),
    ],
)
def test_bad_input_writes_nothing(
    server: LiveServer, image: str, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    edit = make(server.client, image, rephrases=["is so"], not_for=["is not so"])
    version = server.version()
    check(server.client.post(f"/edits/{edit['id']}/scope", json=body), status, code, param)
    assert server.version() == version
    assert lists(server.client, edit) == (["is so"], ["is not so"])


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"rephrases": ["one", " one"]}, "rephrases"),
        ({"not_for": ["q "]}, "not_for"),
        ({"rephrases": ["one"], "not_for": ["one"]}, "not_for"),
        ({"not_for": [""]}, "not_for"),
        ({"not_for": [f"w{n}" for n in range(33)]}, "not_for"),
    ],
)
def test_a_new_edit_has_the_same_rules(
    server: LiveServer, image: str, fields: dict[str, Any], param: str
) -> None:
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields
    version = server.version()
    check(server.client.post("/edits", json=body), 400, "invalid_field", param)
    assert server.version() == version


def test_only_active_and_superseded_edits_have_their_scope_changed(
    server: LiveServer, image: str
) -> None:
    client = server.client
    edit = make(client, image)
    client.post(f"/admin/edits/{edit['id']}/rollback")
    body = {"rephrases": ["x"]}
    assert_not_active(client.post(f"/edits/{edit['id']}/scope", json=body))
    check(client.post("/edits/nobody/scope", json=body), 404, "edit_not_found", "id")


def test_one_that_is_pending_has_none_to_change(parts: Path, tmp_path: Path, image: str) -> None:
    settings = Settings.load(model=str(parts), data_dir=tmp_path / "d", device="cpu", edit_wait_s=0)
    with LiveServer(settings) as server, server.device_held():
        body = {"image": image, "prompt": "q", "target": "blue", "not_for": ["that"]}
        pending = server.client.post("/edits", json=body).json()
        assert (pending["status"], pending["not_for"]) == ("pending", ["that"])
        path = f"/edits/{pending['id']}"
        refused = server.client.post(f"{path}/scope", json={"rephrases": ["x"]})
        assert_not_active(refused)
        server.client.post(f"{path}/cancel")
        refused = server.client.post(f"{path}/scope", json={"rephrases": ["x"]})
        assert_not_active(refused)


def test_a_locked_database_changes_nothing(server: LiveServer, image: str) -> None:
    client = server.client
    edit = make(client, image)
    file = server.runtime.settings.data_dir / "errata.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    body = {"rephrases": ["x"], "verify": "off"}
    check(client.post(f"/edits/{edit['id']}/scope", json=body), 503, "store_unavailable", None)
    other.execute("ROLLBACK")
    other.close()
    assert lists(client, edit) == ([], [])
    assert scope(client, edit, rephrases=["x"])["changed"]


def test_many_at_once_end_up_side_by_side(server: LiveServer, image: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    client = server.client
    edit = make(client, image)
    before = server.version()

    def add(number: int) -> int:
        body = {"rephrases": [f"w{number}"], "verify": "off"}
        url = f"{server.url}/edits/{edit['id']}/scope"
        return httpx.post(url, json=body, timeout=120).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(add, range(6))) == [200] * 6
    assert sorted(lists(client, edit)[0]) == [f"w{n}" for n in range(6)]
    assert server.version() == before + 6


# --- verified, on the model that ships ------------------------------------------------------


def test_a_replay_tells_what_was_answered_first(shipped: httpx.Client) -> None:
    body, headers = about(draw_sample(541)), {"Idempotency-Key": "scoped"}
    first = shipped.post("/edits", json=body | {"not_for": ["Is it raining?"]}, headers=headers)
    assert first.status_code == 201, first.text
    scope(shipped, first.json(), rephrases=["Another one"], remove_not_for=["Is it raining?"])
    again = shipped.post("/edits", json=body | {"not_for": ["Is it raining?"]}, headers=headers)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    other = shipped.post("/edits", json=body, headers=headers)
    check(other, 422, "idempotency_mismatch", "Idempotency-Key")


def test_a_change_of_scope_is_verified(shipped: httpx.Client) -> None:
    sample = draw_sample(540)
    body = about(sample)
    edit = shipped.post("/edits", json=body).json()
    assert edit["verified"], edit
    head = shipped.get("/versions").json()["version"]
    path = f"/edits/{edit['id']}/scope"
    own, held_out = sample.questions[0].wordings[1], sample.questions[0].held_out_wordings[0]

    taken = shipped.post(path, json={"rephrases": [own], "not_for": ["Is it raining?"]}).json()
    assert (taken["version"], taken["edit"]["verified"]) == (head + 1, True)
    assert taken["edit"]["verified_version"] == head
    assert (taken["edit"]["before"], taken["edit"]["after"]) == (edit["before"], body["target"])

    refused = shipped.post(path, json={"rephrases": ["Is there any milk left in the fridge?"]})
    error = check(refused, 422, "edit_not_effective", None)
    assert error["after"] == body["target"]

    leaks = next(
        text
        for text in (*sample.questions[0].wordings[2:], held_out)
        if shipped.post("/generate", json={"image": body["image"], "prompt": text}).json()["text"]
        == body["target"]
    )
    error = check(shipped.post(path, json={"not_for": [leaks]}), 422, "edit_not_effective", None)
    assert [damage["prompt"] for damage in error["damaged"]] == [leaks]
    assert shipped.get("/versions").json()["version"] == head + 1

    told = shipped.post(path, json={"not_for": [leaks], "verify": "report"}).json()["edit"]
    assert (told["verified"], [d["prompt"] for d in told["damaged"]]) == (False, [leaks])
    shipped.post("/admin/rollback", json={"to_version": head + 1})
    back = shipped.get(f"/edits/{edit['id']}").json()
    assert {name: back[name] for name in taken["edit"]} == taken["edit"]


def test_errata_scope(server: LiveServer, image: str) -> None:
    edit = make(server.client, image, rephrases=["old"])
    run = CliRunner().invoke(
        app,
        [
            "scope", edit["id"], "--url", server.url, "--verify", "off",
            "--rephrase", "Capital city?", "--rephrase", "b", "--not-for", "c",
            "--remove-rephrase", "old", "--reason", "why not",
        ],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert lists(server.client, edit) == (["Capital city?", "b"], ["c"])
    run = CliRunner().invoke(
        app, ["scope", edit["id"], "--url", server.url, "--remove-not-for", "x"]
    )
    assert (run.exit_code, "nothing changed" in run.output) == (0, True), run.output
    run = CliRunner().invoke(app, ["scope", edit["id"], "--url", server.url, "--not-for", "q"])
    assert (run.exit_code, "invalid_field" in run.output) == (1, True), run.output
