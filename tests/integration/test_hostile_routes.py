"""Every route that reads a body does so under the same limits: what is new is tried as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

import app.main  # noqa: F401 - so that every model of a request is known
from app.deps import validate
from app.errors import ServiceError
from app.openai.chat import ChatRequest
from app.openai.completions import CompletionRequest
from app.openai.fields import Lenient
from app.openai.messages import WireMessage, conversation
from app.openai.responses import ResponsesRequest
from app.schemas.base import Request
from app.schemas.generation import GenerateRequest
from app.settings import Settings
from tests.integration.test_errors_table import check
from tests.integration.test_hostile_input import Raw
from tests.support.hostile import costly
from tests.support.server import LiveServer, data_uri
from tests.support.steps import steps

PATHS = (
    "/admin/edits/{id}/reinstate",
    "/admin/edits/{id}/rollback",
    "/admin/keys",
    "/admin/keys/{id}/revoke",
    "/admin/rollback",
    "/attributions",
    "/edits",
    "/edits/batch",
    "/edits/{id}/cancel",
    "/edits/{id}/scope",
    "/feedback",
    "/feedback/import",
    "/feedback/{id}/resolve",
    "/generate",
    "/scope/preview",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
)
SHOWN: dict[str, Callable[[str], dict[str, Any]]] = {
    "/generate": lambda image: {"image": image, "prompt": "q"},
    "/attributions": lambda image: {"image": image, "prompt": "q"},
    "/edits": lambda image: {"image": image, "prompt": "q", "target": "t"},
    "/v1/chat/completions": lambda image: {
        "model": "x",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"},
                                         {"type": "image_url", "image_url": {"url": image}}]}
        ],
    },
    "/v1/responses": lambda image: {
        "model": "x",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "q"},
                                         {"type": "input_image", "image_url": image}]}
        ],
    },
}  # fmt: skip
HEAP = "a" + "\u0301\u0316" * 5_000


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """It waits a second for a body."""
    folder = tmp_path_factory.mktemp("data")
    settings = Settings.load(
        model=str(tiny_checkpoint), data_dir=folder, device="cpu", body_timeout_s=1.0
    )
    with LiveServer(settings) as live:
        yield live


def model_of(client: httpx.Client) -> str:
    name: str = client.get("/v1/models").json()["data"][0]["id"]
    return name


def test_these_are_all_of_them(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {path for path in paths if "requestBody" in paths[path].get("post", {})} == set(PATHS)
    assert not {m for path in paths.values() for m in path} & {"put", "patch"}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_is_counted_before_it_is_built(client: httpx.Client, path: str) -> None:
    members = b"{" + b",".join(b'"%d":0' % i for i in range(150_000)) + b"}"
    for body in (b"[" * 50_000, b'{"a":' * 50_000, b"[" + b"[]," * 200_000 + b"[]]", members):
        check(client.post(path, content=body), 400, "invalid_json", None)


@pytest.mark.parametrize("path", PATHS)
def test_thousands_of_fields_are_answered_in_a_few_words(client: httpx.Client, path: str) -> None:
    for fields in ({f"x{i}": 0 for i in range(40_000)}, {"x" * 1_000_000: 1}):
        response = client.post(path, json=fields)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["code"] in ("unknown_field", "missing_field")
        assert len(response.content) < 2000


@pytest.mark.parametrize("path", PATHS)
def test_a_body_too_large_is_refused(client: httpx.Client, path: str) -> None:
    body = b'{"prompt":"' + b"x" * (17 * 2**20) + b'"}'
    check(client.post(path, content=body), 413, "body_too_large", None)


def test_a_body_that_does_not_arrive_is_waited_for_no_longer(server: LiveServer) -> None:
    def answer(path: str) -> httpx.Response:
        with Raw(server) as slow:
            slow.post(1000, path=path)
            slow.send(b"{")
            return slow.answer()

    with ThreadPoolExecutor(len(PATHS)) as pool:
        for response in pool.map(answer, PATHS):
            check(response, 408, "request_timeout", None)


@pytest.mark.parametrize("path", SHOWN)
@pytest.mark.parametrize("name", ["scans_400.jpg", "fill.jpg", "tiny_pieces.png", "comments.gif"])
def test_costly_pictures_are_refused_at_every_door(
    client: httpx.Client, path: str, name: str
) -> None:
    body = SHOWN[path](data_uri(costly(2**20)[name]))
    if "model" in body:
        body["model"] = model_of(client)
    response = client.post(path, json=body)
    assert response.status_code == (400 if path.startswith("/v1/") else 422), response.text
    assert response.json()["error"]["code"] == "image_undecodable"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": HEAP}]}),
        ("/v1/chat/completions", {"messages": [{"role": HEAP, "content": "q"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": HEAP}]}]}),
        ("/v1/responses", {"input": HEAP}),
        ("/v1/responses", {"input": "q", "instructions": HEAP}),
        ("/v1/completions", {"prompt": ["q", HEAP]}),
        ("/v1/completions", {"prompt": "q", "stop": HEAP}),
        ("/scope/preview", {"prompt": HEAP, "target": "t"}),
        ("/feedback", {"answer_id": "x", "verdict": "wrong", "correction": HEAP}),
        ("/admin/keys", {"label": HEAP, "scope": "read"}),
    ],
)
def test_marks_heaped_on_one_letter_are_refused(
    client: httpx.Client, path: str, fields: dict[str, Any]
) -> None:
    body = {"model": model_of(client)} | fields if path.startswith("/v1/") else fields
    response = client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid_field"


def requests(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from requests(model)


def lists(schema: Any) -> Iterator[dict[str, Any]]:
    """Every list in a schema, however deep."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            yield schema
        # What only describes is never validated.
        schema = [part for name, part in schema.items() if name != "json_schema_input_schema"]
    if isinstance(schema, list | tuple):
        for part in schema:
            yield from lists(part)


def test_no_list_of_a_request_makes_an_error_of_each_item() -> None:
    models = {*requests(Request), *requests(Lenient)}
    found = [(model, each) for model in models for each in lists(model.__pydantic_core_schema__)]
    assert len(found) > 20
    for model, each in found:
        is_bounded = each.get("fail_fast") or each.get("max_length", 10**9) <= 100
        is_passed_on = each["items_schema"]["type"] == "any"
        assert is_bounded or is_passed_on, f"{model.__name__}: {each}"


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (GenerateRequest, {f"x{i}": 0 for i in range(40_000)}),
        (ChatRequest, {"model": "x", "messages": [{}] * 900}),
        (ChatRequest, {"model": "x", "messages": [{"role": "user", "content": [{}] * 40_000}]}),
        (CompletionRequest, {"model": "x", "prompt": [{}] * 40_000}),
        (ResponsesRequest, {"model": "x", "input": [{"content": [{}] * 40_000}]}),
    ],
    ids=["fields", "messages", "parts", "prompts", "items"],
)
def test_of_thousands_of_mistakes_a_few_are_looked_at(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    def refused() -> None:
        with pytest.raises(ServiceError):
            validate(model, body)

    assert steps(refused) < 2000


def test_a_conversation_of_many_messages_is_copied_once() -> None:
    """Told by the texts that its functions hold when they return, so on any machine."""

    def copied(count: int) -> int:
        turns = [WireMessage(role="user", content="x" * 100) for _ in range(count)]
        total = 0

        def watch(frame: Any, event: str, _argument: object) -> None:
            nonlocal total
            if event == "return":
                texts = (v for v in frame.f_locals.values() if isinstance(v, str))
                total += max(map(len, texts), default=0)

        sys.setprofile(watch)
        try:
            conversation(turns, param="messages", takes_several=False)
        finally:
            sys.setprofile(None)
        return total

    assert copied(1000) < 20 * copied(100)
