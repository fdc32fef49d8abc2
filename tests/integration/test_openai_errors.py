"""Every class of error that the official client knows, as it meets it here."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from torch import Tensor

from app.settings import Settings
from editing_core.backbones.base import Backbone
from tests.integration.test_generate import events
from tests.support.openai_client import client_of, message
from tests.support.server import LiveServer, data_uri, eventually


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        queue_limit=1,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture(scope="module")
def door(server: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


def ask(door: openai.OpenAI, **fields: Any) -> Any:
    body: dict[str, Any] = {"model": door_model(door), "messages": [message("q")]}
    return door.chat.completions.create(**body | {"max_tokens": 2} | fields)


def door_model(door: openai.OpenAI) -> str:
    return next(iter(door.models.list())).id


BROKEN = data_uri(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": []}, "invalid_field", "messages"),
        ({"messages": [message("q", role="nobody")]}, "invalid_field", "messages"),
        ({"messages": [message("q", role="assistant")]}, "invalid_field", "messages"),
        ({"messages": [message(" ")]}, "invalid_field", "messages"),
        ({"temperature": 3}, "invalid_field", "temperature"),
        ({"n": 9}, "invalid_field", "n"),
        ({"max_tokens": 0}, "invalid_field", "max_tokens"),
        ({"stop": ["x"] * 17}, "invalid_field", "stop"),
        ({"tool_choice": "required"}, "unsupported_parameter", "tool_choice"),
        ({"extra_body": {"errata": {"edit": "off"}}}, "unknown_field", "errata"),
        ({"messages": [message("q", "https://example.org/x.png")]}, "remote_images_disabled", None),
        ({"messages": [message("q", "data:image/png;base64,%")]}, "image_base64_invalid", None),
        ({"messages": [message("q", BROKEN)]}, "image_undecodable", None),
        ({"messages": [message("q " * 400)]}, "context_length_exceeded", None),
        ({"messages": [message("q", *[BROKEN] * 17)]}, "too_many_images", None),
    ],
)
def test_what_cannot_be_taken_is_a_bad_request(
    door: openai.OpenAI, fields: dict[str, Any], code: str, param: str | None
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(door, **fields, stream=stream)
        error: Any = refused.value.body
        assert (error["code"], error["type"]) == (code, "invalid_request_error")
        assert param is None or error["param"] == param
        assert error["hint"]
        assert refused.value.request_id == error["request_id"]


def test_paths_and_methods_have_the_same_shape(client: httpx.Client) -> None:
    for method, path, status, code in (
        ("GET", "/v1/embeddings", 404, "route_not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", 400, "invalid_json"),
    ):
        response = client.request(method, path)
        assert response.status_code == status
        assert response.json()["error"]["code"] == code
    large = client.post("/v1/chat/completions", content=b" " * (16 * 2**20 + 1))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    text = client.post("/v1/completions", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (text.status_code, text.json()["error"]["code"]) == (415, "content_type_unsupported")


def test_the_reference_describes_what_is_sent(client: httpx.Client) -> None:
    reference = client.get("/openapi.json")
    paths = reference.json()["paths"]
    body = paths["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]
    message_fields = body["schema"]["properties"]["messages"]["items"]["properties"]

    assert "#/$defs" not in reference.text
    assert set(message_fields) == {"role", "content"}
    assert {"/v1/models", "/v1/models/{id}", "/v1/responses", "/v1/completions"} <= set(paths)


def test_missing_fields_are_named(client: httpx.Client) -> None:
    for path, body, param in (
        ("chat/completions", {"messages": []}, "model"),
        ("chat/completions", {"model": "x"}, "messages"),
        ("responses", {"model": "x"}, "input"),
        ("completions", {"model": "x"}, "prompt"),
    ):
        error = client.post(f"/v1/{path}", json=body).json()["error"]
        assert (error["code"], error["param"]) == ("missing_field", param)


def test_a_full_queue_is_a_rate_limit_and_is_tried_again(server: LiveServer) -> None:
    # The place is taken by a request of our own, and is free again when the client tries once more.
    with client_of(server) as once, client_of(server, max_retries=8) as often:
        model, answers = door_model(once), []

        def wait_for_it() -> None:
            answers.append(ask(often))

        with server.device_held():
            first = threading.Thread(target=lambda: ask(once))
            first.start()
            eventually(lambda: server.waiting == 1)
            with pytest.raises(openai.RateLimitError) as refused:
                ask(once, model=model)
            assert refused.value.code == "queue_full"
            assert int(refused.value.response.headers["retry-after"]) >= 1
            second = threading.Thread(target=wait_for_it)
            second.start()
        first.join()
        second.join()
        assert answers[0].usage.completion_tokens >= 1


def test_a_client_that_leaves_frees_its_place(door: openai.OpenAI, server: LiveServer) -> None:
    for stream in (False, True):
        with server.device_held():
            impatient = door.with_options(timeout=0.5)
            with pytest.raises(openai.APITimeoutError):
                ask(impatient, model=server.service.model_name, stream=stream)
            eventually(lambda: server.waiting == 0)


def test_a_stream_that_breaks_says_so(
    door: openai.OpenAI,
    client: httpx.Client,
    server: LiveServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone, steps = type(server.model.backbone), itertools.count()
    decode = backbone.decode

    def fail(self: Backbone, *arguments: Any, **more: Any) -> Tensor:
        if next(steps) % 20 == 19:
            raise RuntimeError("the device is on fire")
        return decode(self, *arguments, **more)

    monkeypatch.setattr(backbone, "decode", fail)
    monkeypatch.setattr(backbone, "stop_token_ids", ())
    stream = ask(door, stream=True, max_tokens=40)
    with pytest.raises(openai.APIError) as broken:
        list(stream)
    assert broken.value.code == "internal_error"
    assert "fire" not in str(broken.value)

    told = list(door.responses.create(model=door_model(door), input="q", stream=True))
    assert told[-1].type == "error"
    assert told[-1].code == "internal_error"
    with pytest.raises(openai.InternalServerError):
        ask(door, max_tokens=40)
    body = {"model": door_model(door), "messages": [message("q")], "stream": True}
    response = client.post("/v1/chat/completions", json=body)
    assert "[DONE]" not in response.text
    assert events(response)[-1]["error"]["code"] == "internal_error"


def test_a_draining_server_says_when_to_come_again(server: LiveServer) -> None:
    """The last test of this module: the server stays in this state."""
    with client_of(server) as door:
        model = door_model(door)
        server.drain()
        with pytest.raises(openai.InternalServerError) as refused:
            ask(door, model=model)
    assert (refused.value.status_code, refused.value.code) == (503, "draining")
    assert refused.value.response.headers["retry-after"]
