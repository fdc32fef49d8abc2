"""Asking over HTTP: streams, pinned snapshots, going away, what is counted and said."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from torch import Tensor

from editing_core.backbones.base import Backbone
from tests.integration.conftest import Edit
from tests.support.server import LiveServer, data_uri, eventually, picture, png
from tests.support.tiny_model import tiny_image


def events(response: httpx.Response) -> list[Any]:
    """The data of every server-sent event, `[DONE]` as text."""
    texts = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


@pytest.mark.parametrize(
    "fields",
    [{}, {"temperature": 1.0, "seed": 7}, {"stop": ["a", "\ufffd"]}, {"max_new_tokens": 1}],
    ids=["greedy", "sampled", "stopped", "one"],
)
def test_a_stream_joins_to_the_unstreamed_text(
    client: httpx.Client, edit: Edit, image: str, fields: dict[str, Any]
) -> None:
    made = edit()
    body = {"prompt": "q", "image": image, "max_new_tokens": 24, "explain": True} | fields
    whole = client.post("/generate", json=body).json()
    response = client.post("/generate", json=body | {"stream": True})
    *deltas, tail, done = events(response)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert "".join(delta["delta"] for delta in deltas) == whole["text"]
    assert all(set(delta) == {"delta"} for delta in deltas)
    assert done == "[DONE]"
    assert set(tail) == set(whole) - {"text"}
    assert [a["edit_id"] for a in tail["applied"]] == [made["id"]]
    for name in ("finish_reason", "applied", "candidates", "usage", "version", "model"):
        assert tail[name] == whole[name]


def test_an_answer_counts_its_tokens(client: httpx.Client, image: str) -> None:
    with_picture = client.post("/generate", json={"prompt": "q", "image": image}).json()
    without = client.post("/generate", json={"prompt": "q", "max_new_tokens": 3}).json()

    usage = with_picture["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] > without["usage"]["prompt_tokens"] + 15  # image tokens
    assert without["usage"]["completion_tokens"] <= 3
    assert without["applied"] == []
    assert {"generate", "total"} <= set(without["timings_ms"])


def test_a_lossless_copy_is_the_same_picture(client: httpx.Client, edit: Edit) -> None:
    pixels = tiny_image(77)
    as_png = edit(image=data_uri(png(pixels)))
    as_webp = edit(image=data_uri(png(pixels, kind="WEBP", lossless=True)))

    assert as_png["image_digest"] == as_webp["image_digest"]
    assert client.get(f"/edits/{as_png['id']}").json()["status"] == "superseded"


def test_a_generation_keeps_the_snapshot_it_began_with(
    client: httpx.Client, edit: Edit, telling: str, server: LiveServer
) -> None:
    made = edit(image=telling)
    body = {"prompt": "q", "image": telling, "max_new_tokens": 12}
    edited = client.post("/generate", json=body).json()
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        answers.append(httpx.post(f"{server.url}/generate", json=body, timeout=120).json())

    asker = threading.Thread(target=ask)
    with server.device_held():
        asker.start()
        eventually(lambda: server.service.engine.queued == 1)
        undone = client.post(f"/admin/edits/{made['id']}/rollback").json()
        assert undone["changed"] is True
    asker.join()

    assert answers[0]["text"] == edited["text"]
    assert answers[0]["version"] == made["version"]
    assert client.post("/generate", json=body).json()["applied"] == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_goes_away_frees_its_place(
    image: str, server: LiveServer, stream: bool
) -> None:
    body = {"prompt": "q", "image": image, "stream": stream}

    def ask_and_leave() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/generate", json=body, timeout=httpx.Timeout(120, read=0.5))

    with server.device_held():
        ask_and_leave()
        eventually(lambda: server.waiting == 0)  # while the device still does something else
    eventually(lambda: server.service.engine.queued == 0)


@pytest.mark.in_a_thread
def test_a_client_that_leaves_a_stream_stops_the_device(
    image: str, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device waits in the middle of the answer until the client has gone: it never ends."""
    backbone = type(server.model.backbone)
    began, gone = threading.Event(), threading.Event()
    steps = 0
    decode = backbone.decode

    def slowly(self: Backbone, *arguments: Any, **more: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            began.set()
            gone.wait(120)
        return decode(self, *arguments, **more)

    monkeypatch.setattr(backbone, "decode", slowly)
    body = {"prompt": "q", "image": image, "stream": True, "max_new_tokens": 100}
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=120) as response:
        assert response.status_code == 200
        assert began.wait(120)
    eventually(lambda: server.waiting == 0)
    gone.set()
    eventually(lambda: not server.thread.begun)

    assert steps <= 6  # the word that nobody listens may come while the next step is taken


@pytest.mark.in_a_thread
def test_an_error_in_mid_stream_ends_it_without_done(
    client: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"prompt": "q", "stream": True, "max_new_tokens": 40}
    backbone = type(server.model.backbone)
    decode, steps = backbone.decode, 0

    def fail(self: Backbone, *arguments: Any, **more: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 20:
            raise RuntimeError("the device is on fire")
        return decode(self, *arguments, **more)

    monkeypatch.setattr(backbone, "decode", fail)
    response = client.post("/generate", json=body)

    first, *_, last = events(response)
    assert set(first) == {"delta"}
    assert last["error"]["code"] == "internal_error"
    assert "fire" not in response.text
    assert client.post("/generate", json=body).status_code == 200


def test_questions_in_flight_are_answered_as_alone(
    client: httpx.Client, edit: Edit, telling: str, server: LiveServer
) -> None:
    """Twelve at once, some edited, one of them far longer than the others."""
    edit(image=telling)
    bodies = [
        {"prompt": f"q{i % 3}", "image": telling if i % 2 else picture(90 + i), "max_new_tokens": n}
        for i, n in enumerate([60, *range(2, 13)])
    ]
    alone = [client.post("/generate", json=body).json() for body in bodies]
    together: dict[int, Any] = {}

    def ask(number: int) -> None:
        url = f"{server.url}/generate"
        together[number] = httpx.post(url, json=bodies[number], timeout=120).json()

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(bodies))]
    with server.device_held():
        for asker in askers:
            asker.start()
        eventually(lambda: server.service.engine.queued == len(bodies))
    for asker in askers:
        asker.join()

    for number, answer in enumerate(alone):
        for name in ("text", "finish_reason", "usage"):
            assert together[number][name] == answer[name]


def test_min_version_waits_for_the_version(
    client: httpx.Client, edit: Edit, image: str, server: LiveServer
) -> None:
    wanted = server.version() + 1
    answers: list[httpx.Response] = []

    def ask() -> None:
        body = {"prompt": "q", "image": image, "min_version": wanted, "max_new_tokens": 2}
        answers.append(httpx.post(f"{server.url}/generate", json=body, timeout=120))

    asker = threading.Thread(target=ask)
    asker.start()
    edit()
    asker.join()

    # Slow machines may take longer than the two seconds that are waited.
    assert answers[0].status_code in (200, 503)
    if answers[0].status_code == 200:
        assert answers[0].json()["version"] >= wanted


def test_pages_and_probes(client: httpx.Client) -> None:
    assert client.get("/").json()["docs"] == "/docs"
    assert client.get("/docs").status_code == 200
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json()["status"] == "ready"
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/edits", "/generate", "/admin/rollback", "/admin/events", "/versions"}
    body = paths["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"prompt", "image", "stop", "at_version"}
