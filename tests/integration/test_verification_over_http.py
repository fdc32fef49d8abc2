"""Verification where it meets the store, the queue and the clock, with the tiny random model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from app.settings import Settings
from editing_core.refinement import ANSWERS
from editing_core.registry import OBJECTIVES
from tests.integration.test_errors_table import check
from tests.support.server import LiveServer, eventually, picture
from tests.support.tiny_model import save_tiny_checkpoint


def correction(seed: int = 1, **fields: Any) -> dict[str, Any]:
    return {"image": picture(seed), "prompt": "q", "target": "blue"} | fields


def rows(server: LiveServer) -> list[int]:
    file = server.runtime.settings.data_dir / "errata.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = ("events", "edits", "artifacts", "images", "idempotency")
        return [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose router lets no edit act: whatever is asked, no edit takes."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("deaf"), rho=2.0)


def test_an_edit_that_cannot_take_is_refused_and_leaves_no_row(deaf: Path, tmp_path: Path) -> None:
    with LiveServer(Settings.load(model=str(deaf), data_dir=tmp_path)) as server:
        response = server.client.post(
            "/edits", json=correction(), headers={"Idempotency-Key": "once"}
        )
        error = check(response, 422, "edit_not_effective", None)
        base = server.client.post("/generate", json={"image": picture(1), "prompt": "q"}).json()

        assert error["before"] == error["after"] == base["text"]
        assert "'q'" in error["message"]
        assert rows(server) == [0] * 5
        assert server.version() == 0

        made = server.client.post("/edits", json=correction(verify="report")).json()
        assert (made["verified"], made["after"], made["refinement_steps"]) == (
            False,
            base["text"],
            0,
        )


def test_what_was_found_survives_a_restart(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The tiny model's edits act on every question of their picture: they do damage."""
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, refine_steps=3)
    made = []
    with LiveServer(settings) as server:
        made += [
            server.client.post("/edits", json=correction(1, prompt=p, verify="report")).json()
            for p in ("q", "another", "and one more")
        ]
        assert any("prompt" in damage for edit in made for damage in edit["damaged"])
        assert any(edit["refinement_steps"] for edit in made)
        for edit in made:
            assert ("refine" in edit["timings_ms"]) >= bool(edit["refinement_steps"])
            ask = {"image": picture(1), "prompt": edit["prompt"], "at_version": edit["version"]}
            said = server.client.post("/generate", json=ask).json()["text"]
            assert said == edit["after"]
    with LiveServer(settings) as server:
        for edit in made:
            read = server.client.get(f"/edits/{edit['id']}").json()
            assert {name: read[name] for name in edit} == edit
            ask = {"image": picture(1), "prompt": edit["prompt"], "at_version": edit["version"]}
            said = server.client.post("/generate", json=ask).json()["text"]
            assert said == edit["after"]


def test_refinement_by_another_objective_is_a_setting(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings.load(
        model=str(tiny_checkpoint), data_dir=tmp_path, refine_steps=2, refine_objective="odedit"
    )
    with LiveServer(settings) as server:
        made = [
            server.client.post("/edits", json=correction(1, prompt=p, verify="report")).json()
            for p in ("q", "another", "and one more")
        ]
    assert any(edit["refinement_steps"] for edit in made)


def test_every_objective_can_be_set() -> None:
    choices = get_args(Settings.model_fields["refine_objective"].annotation)

    assert set(choices) == {ANSWERS, *OBJECTIVES}


def test_a_neighbour_whose_picture_is_damaged_stops_the_check_by_name(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, refine_steps=0)
    with LiveServer(settings) as server:
        first = server.client.post("/edits", json=correction(verify="off")).json()
        with contextlib.closing(sqlite3.connect(tmp_path / "errata.db")) as connection, connection:
            connection.execute("UPDATE images SET png = x'00'")
        other = correction(prompt="another", verify="report")

        response = server.client.post("/edits", json=other)
        assert response.status_code == 500
        error = response.json()["error"]
        assert error["code"] == "internal_error"
        assert first["id"] in error["message"]
        assert server.version() == 1
        assert server.client.post("/edits", json=other | {"verify": "off"}).status_code == 201


def test_without_steps_nothing_is_refined(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, refine_steps=0)
    with LiveServer(settings) as server:
        made = server.client.post("/edits", json=correction(verify="report")).json()

    assert made["refinement_steps"] == 0
    assert "refine" not in made["timings_ms"]


def test_a_batch_waits_for_room_in_the_queue(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, queue_limit=1)
    answers: list[httpx.Response] = []
    body = {"edits": [correction(verify="off"), correction(2, verify="off")]}

    def send(path: str, body: dict[str, Any]) -> threading.Thread:
        def run() -> None:
            answers.append(httpx.post(f"{server.url}{path}", json=body, timeout=120))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with LiveServer(settings) as server:
        with server.device_held():
            single = send("/generate", {"prompt": "q", "max_new_tokens": 1})
            eventually(lambda: server.waiting == 1)
            check(server.client.post("/edits", json=correction()), 429, "queue_full", None)
            batch = send("/edits/batch", body)
        single.join()
        batch.join()
        lines = [json.loads(line) for line in answers[-1].text.splitlines()]

    assert lines[-1] == {"done": True, "version": 2, "committed": 2, "failed": 0}


def test_a_batch_that_meets_a_drain_ends_in_words(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path)
    answers: list[httpx.Response] = []
    body = {"edits": [correction(n, verify="off") for n in range(3)]}

    def send() -> None:
        answers.append(httpx.post(f"{server.url}/edits/batch", json=body, timeout=120))

    with LiveServer(settings) as server:
        sender = threading.Thread(target=send)
        with server.device_held():
            sender.start()
            eventually(lambda: server.waiting == 1)
            assert server.loop is not None
            drained = asyncio.run_coroutine_threadsafe(server.runtime.drain(), server.loop)
            eventually(lambda: server.runtime.state == "draining")
        drained.result(120)
        sender.join()

    *items, end = map(json.loads, answers[0].text.splitlines())
    assert [line["status"] for line in items] == [201, 503, 503]
    assert {line["error"]["code"] for line in items[1:]} == {"draining"}
    assert end == {"done": True, "version": 1, "committed": 1, "failed": 2}


def test_a_batch_whose_client_goes_away_stops_after_the_edit_under_way(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path)
    body = {"edits": [correction(n, verify="off") for n in range(200)]}
    with LiveServer(settings) as server:
        with contextlib.ExitStack() as held:
            with server.client.stream("POST", "/edits/batch", json=body) as response:
                assert json.loads(next(response.iter_lines()))["status"] == 201
                held.enter_context(server.device_held())
            eventually(lambda: server.waiting == 0)
        version = server.version()
        assert 1 <= version < 200
        assert len(server.client.get("/edits?limit=200").json()["data"]) == version
