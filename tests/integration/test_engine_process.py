"""The model in a process of its own: what happens when that ends, and what does not."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.integration.conftest import answer
from tests.support.other_weights import trained_further
from tests.support.server import LiveServer, eventually


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One that answers 202 at once, so that edits are under way when the engine ends."""
    with LiveServer(settings(tiny_checkpoint, tmp_path_factory.mktemp("data"))) as live:
        yield live


def settings(model: Path, data_dir: Path, **more: Any) -> Settings:
    known = {"model": str(model), "data_dir": data_dir, "device": "cpu", "engine": "process"}
    return Settings.load(**known | {"edit_wait_s": 0.0} | more)


def made(client: httpx.Client, image: str, **fields: Any) -> str:
    """The id of an edit that is active."""
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields
    promised = client.post("/edits", json=body)
    assert promised.status_code in (201, 202), promised.text
    edit_id: str = promised.json()["id"]
    eventually(lambda: status(client, edit_id) == "active")
    return edit_id


def applied(client: httpx.Client, image: str, **fields: Any) -> list[str]:
    return [each["edit_id"] for each in answer(client, image, **fields)["applied"]]


def status(client: httpx.Client, edit_id: str) -> str:
    found: str = client.get(f"/edits/{edit_id}").json()["status"]
    return found


def is_ready(client: httpx.Client) -> bool:
    return client.get("/health/ready").status_code == 200


def code(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert error["hint"]
    found: str = error["code"]
    return found


def measured(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_a_killed_engine_costs_the_requests_it_had_and_nothing_else(
    server: LiveServer, client: httpx.Client, image: str
) -> None:
    edit = made(client, image)
    before = answer(client, image)
    old = answer(client, image, at_version=before["version"] - 1)
    restarts = measured(client, "errata_engine_restarts_total")
    cut: dict[str, httpx.Response] = {}
    body = {"prompt": "q", "image": image, "max_new_tokens": 100}
    order = {"image": image, "prompt": "later", "target": "one", "verify": "report"}

    def send(name: str, path: str, fields: dict[str, Any]) -> None:
        cut[name] = httpx.post(f"{server.url}{path}", json=fields, timeout=120)

    senders = [
        threading.Thread(target=send, args=("answer", "/generate", body)),
        threading.Thread(
            target=send, args=("picture", "/attributions", {"prompt": "q", "image": image})
        ),
    ]
    promised = client.post("/edits", json=order).json()
    process = server.device_pid
    os.kill(process, signal.SIGSTOP)
    for sender in senders:
        sender.start()
    eventually(lambda: server.waiting == 2)
    os.kill(process, signal.SIGKILL)
    for sender in senders:
        sender.join()

    for response in cut.values():
        assert (response.status_code, code(response)) == (503, "engine_restarting")
        assert int(response.headers["Retry-After"]) >= 1
    assert client.get("/health/live").status_code == 200
    unready = client.get("/health/ready")
    assert (unready.status_code, code(unready)) == (503, "engine_restarting")
    assert unready.json()["status"] == "restarting"
    refused = client.post("/generate", json=body)
    assert (refused.status_code, code(refused)) == (503, "engine_restarting")
    assert measured(client, "errata_engine_up") == measured(client, "errata_ready") == 0
    assert status(client, edit) == "active", "what needs no model is served"

    eventually(lambda: is_ready(client))
    assert server.device_pid != process
    assert measured(client, "errata_engine_up") == 1
    assert measured(client, "errata_engine_restarts_total") == restarts + 1
    eventually(lambda: status(client, promised["id"]) == "active")  # it was promised
    at_first = {"at_version": before["version"]}
    assert answer(client, image, **at_first)["text"] == before["text"]
    assert answer(client, image, at_version=old["version"])["text"] == old["text"]
    assert server.waiting == server.service.engine.queued == 0


def test_a_stream_that_is_cut_says_so(server: LiveServer, client: httpx.Client, image: str) -> None:
    eventually(lambda: is_ready(client))
    body = {"prompt": "q", "image": image, "max_new_tokens": 120, "stream": True}
    lines: list[str] = []
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=120) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if not lines:
                os.kill(server.device_pid, signal.SIGKILL)
            lines += [line] if line else []
    assert lines[-1] != "data: [DONE]"
    assert "engine_restarting" in lines[-1]
    eventually(lambda: is_ready(client))


def test_every_door_is_open(client: httpx.Client, image: str) -> None:
    eventually(lambda: is_ready(client))
    edit = made(client, image)
    body = {"rephrases": ["in other words"], "verify": "off"}
    changed = client.post(f"/edits/{edit}/scope", json=body)
    assert changed.status_code == 200, changed.text
    assert client.get(f"/edits/{edit}").json()["rephrases"] == ["in other words"]
    candidates = answer(client, image, explain=True)["candidates"]
    assert [each["edit_id"] for each in candidates] == [edit]

    undone = client.post(f"/admin/edits/{edit}/rollback")
    assert undone.status_code == 200
    assert applied(client, image) == []
    assert answer(client, image, explain=True)["candidates"][0]["outcome"] == "inactive"
    again = client.post(f"/admin/edits/{edit}/reinstate", json={"force": True})
    assert again.status_code == 200, again.text
    assert applied(client, image) == [edit]

    attributed = client.post("/attributions", json={"prompt": "q", "image": image})
    assert attributed.status_code == 200, attributed.text
    reported = {"answer_id": answer(client, image)["id"], "verdict": "wrong", "correction": "red"}
    assert client.post("/feedback", json=reported).status_code in (200, 201)


def test_what_the_engine_refuses_is_refused_as_ever(client: httpx.Client, image: str) -> None:
    eventually(lambda: is_ready(client))
    long = client.post("/generate", json={"prompt": "x " * 5000, "image": image})
    assert (long.status_code, code(long)) == (422, "context_too_long")
    body = {"image": image, "prompt": "q", "target": "x" * 9000, "verify": "off"}
    refused = client.post("/edits", json=body)
    assert (refused.status_code, code(refused)) == (422, "target_too_long")
    preview = client.post("/scope/preview", json={"prompt": "q"})
    assert (preview.status_code, code(preview)) == (409, "no_question_encoder")


@pytest.mark.parametrize("model_is", ["gone", "another"])
def test_an_engine_that_does_not_come_back_is_told_from_one_that_will(
    tiny_checkpoint: Path, tmp_path: Path, image: str, model_is: str
) -> None:
    model = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    with LiveServer(settings(model, tmp_path / "data", engine_restarts=1)) as server:
        client = server.client
        edit = made(client, image)
        shutil.rmtree(model)
        if model_is == "another":
            trained_further(tiny_checkpoint, model, "router")
        os.kill(server.device_pid, signal.SIGKILL)
        eventually(lambda: client.get("/health/live").status_code == 503)
        assert code(client.get("/health/live")) == "engine_failed"
        assert code(client.get("/health/ready")) == "engine_failed"
        refused = client.post("/generate", json={"prompt": "q", "image": image})
        assert (refused.status_code, code(refused)) == (503, "engine_failed")
        assert status(client, edit) == "active"


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    server = LiveServer(settings(tmp_path / "nowhere", tmp_path / "data"), wait=False)
    with server:
        eventually(lambda: server.runtime.state == "failed")
        assert "nowhere" in str(server.runtime.failure)


def test_a_stop_while_the_model_is_loaded_is_not_held_up(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with LiveServer(settings(tiny_checkpoint, tmp_path), wait=False) as server:
        server.drain()
    assert server.runtime.state == "closed"
