"""What clients send, without the clients: bodies as their sources build them. An edit shows through
each, and its rollback. Open WebUI and VLMEvalKit are tried by these alone, for the one is too heavy
for a test and the other is not on PyPI; lmms-eval is really run in tests/clients."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.integration.conftest import Edit
from tests.integration.test_generate import events
from tests.support.server import LiveServer

Body = Callable[[str, str], dict[str, Any]]


def as_jpeg(image: str) -> str:
    buffer = io.BytesIO()
    data = base64.b64decode(image.partition(",")[2])
    Image.open(io.BytesIO(data)).save(buffer, "JPEG", quality=95)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def chat_window(model: str, image: str) -> dict[str, Any]:
    """Open WebUI: streamed, with its built-in tools, and options of its own."""
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "User Context:\n\nToday is Friday."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "q"},
                    {"type": "image_url", "image_url": {"url": image}},
                ],
            },
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_current_timestamp",
                    "description": "Get the current time.",
                    "parameters": {"type": "object", "properties": {}, "required": []},
                },
            }
        ],
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": 12,
        "reasoning_effort": "medium",
    }


def benchmark(model: str, image: str) -> dict[str, Any]:
    """VLMEvalKit: a JPEG, in front of the words, and more tokens than most contexts have."""
    return {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": as_jpeg(image), "detail": "low"}},
                    {"type": "text", "text": "q"},
                ],
            }
        ],
        "n": 1,
        "temperature": 0,
        "max_tokens": 32768,
    }


def harness(model: str, image: str) -> dict[str, Any]:
    """lmms-eval: by the official client, with what it puts beside OpenAI's own fields."""
    return {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": image}},
                    {"type": "text", "text": "q"},
                ],
            }
        ],
        "model": model,
        "max_tokens": 12,
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": False},
        "media_io_kwargs": {"video": {"num_frames": 32}},
    }


def ask(client: httpx.Client, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    if not body.get("stream"):
        said = response.json()
        return said["choices"][0]["message"]["content"], said["errata"]
    *chunks, last, done = events(response)
    assert done == "[DONE]"
    text = "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)
    return text, last["errata"]


@pytest.mark.parametrize(
    ("body_of", "ignored", "clamped"),
    [
        (chat_window, ["reasoning_effort", "tools"], []),
        (benchmark, [], ["max_tokens"]),
        (harness, ["chat_template_kwargs", "media_io_kwargs"], []),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_edit_shows_and_so_does_its_rollback(
    client: httpx.Client,
    server: LiveServer,
    edit: Edit,
    telling: str,
    body_of: Body,
    ignored: list[str],
    clamped: list[str],
) -> None:
    body = body_of(server.service.model_name, telling)
    before, _ = ask(client, body)
    shown = as_jpeg(telling) if body_of is benchmark else telling
    made = edit(image=shown)
    after, told = ask(client, body)
    client.post(f"/admin/edits/{made['id']}/rollback")
    undone, told_then = ask(client, body)

    assert [each["edit_id"] for each in told["applied"]] == [made["id"]]
    assert told_then["applied"] == []
    assert undone == before != after
    assert sorted(told["ignored"]) == ignored
    assert told["clamped"] == clamped


def test_titles_are_made_of_text_alone(client: httpx.Client, server: LiveServer) -> None:
    """As chat windows ask for them, beside the chat itself."""
    task = "### Task:\nGenerate a concise title."
    body = {
        "model": server.service.model_name,
        "messages": [{"role": "user", "content": task}],
        "stream": False,
        "max_completion_tokens": 1000,
        "metadata": {"task": "title_generation", "chat_id": "x"},
    }
    text, told = ask(client, body)

    assert isinstance(text, str)
    assert told["ignored"] == []
    assert told["clamped"] == ["max_completion_tokens"]
