"""Responses and completions through the official client, on the tiny random model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.integration.conftest import Edit
from tests.support.openai_client import client_of, message
from tests.support.server import LiveServer, picture


@pytest.fixture(scope="module")
def door(server: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


@pytest.fixture
def model(server: LiveServer) -> str:
    return server.service.model_name


def asked_about(image: str, text: str = "q") -> Any:
    parts = [{"type": "input_text", "text": text}, {"type": "input_image", "image_url": image}]
    return [{"role": "user", "content": parts}]


def test_a_response_is_what_a_chat_says(
    door: openai.OpenAI, edit: Edit, model: str, image: str
) -> None:
    made = edit()
    chat = door.chat.completions.create(model=model, messages=[message("q", image)], max_tokens=9)
    said = door.responses.create(model=model, input=asked_about(image), max_output_tokens=9)

    assert said.output_text == chat.choices[0].message.content
    assert said.id.startswith("resp-")
    assert (said.object, said.error) == ("response", None)
    is_whole = chat.choices[0].finish_reason == "stop"
    assert said.status == ("completed" if is_whole else "incomplete")
    assert said.usage is not None
    assert chat.usage is not None
    assert said.usage.input_tokens == chat.usage.prompt_tokens
    assert said.usage.total_tokens == chat.usage.total_tokens
    assert said.model_extra is not None
    assert [each["edit_id"] for each in said.model_extra["errata"]["applied"]] == [made["id"]]


def test_instructions_and_earlier_items_are_turns(
    door: openai.OpenAI, model: str, image: str
) -> None:
    turns: Any = [
        *asked_about(image, "What is it?"),
        {"type": "reasoning", "id": "r", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a star", "annotations": []}],
        },
        {"role": "user", "content": "Which?"},
    ]
    said = door.responses.create(
        model=model, instructions="Be brief.", input=turns, max_output_tokens=4
    )
    chat = door.chat.completions.create(
        model=model,
        messages=[
            message("Be brief.", role="developer"),
            message("What is it?", image),
            message("a star", role="assistant"),
            message("Which?"),
        ],
        max_tokens=4,
    )

    assert said.output_text == chat.choices[0].message.content
    assert said.usage is not None
    assert chat.usage is not None
    assert said.usage.input_tokens == chat.usage.prompt_tokens


def test_the_events_of_a_response_are_those_the_client_knows(
    door: openai.OpenAI, model: str, image: str
) -> None:
    asked: dict[str, Any] = {
        "model": model,
        "input": asked_about(image),
        "max_output_tokens": 8,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    whole = door.responses.create(**asked)
    events = list(door.responses.create(**asked, stream=True))
    kinds = [event.type for event in events]
    first = kinds.index("response.output_text.delta")
    last = len(kinds) - 1 - kinds[::-1].index("response.output_text.delta")

    assert kinds[:first] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[first : last + 1]) == {"response.output_text.delta"}
    assert kinds[last + 1 :] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{whole.status}",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == (
        whole.output_text
    )
    ending: Any = events[-1]
    assert ending.response.output_text == whole.output_text
    content = ending.response.output[0].content[0]
    assert content.logprobs == whole.output[0].content[0].logprobs
    assert len(content.logprobs[0].top_logprobs) == 2


def test_a_response_keeps_to_its_schema(door: openai.OpenAI, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"enum": [1, 2]}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    said = door.responses.create(model=model, input="q", text={"format": form})

    assert json.loads(said.output_text)["n"] in (1, 2)
    assert said.status == "completed"
    with door.responses.stream(model=model, input="q", text={"format": form}) as stream:
        assert stream.get_final_response().output_text == said.output_text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp-1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input"),
    ],
)
def test_what_a_response_would_be_wrong_without_is_refused(
    door: openai.OpenAI, model: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        door.responses.create(**({"model": model, "input": "q"} | fields))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)


def test_a_text_is_continued_as_it_stands(door: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "prompt": "the star", "max_tokens": 8}
    said = door.completions.create(**asked)
    (choice,) = said.choices
    assert said.id.startswith("cmpl-")
    assert choice.logprobs is None
    assert said.usage is not None
    assert said.usage.prompt_tokens < 8  # no template around it

    chunks = list(door.completions.create(**asked, stream=True, echo=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "the star" + choice.text
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason


def test_several_texts_are_each_continued(door: openai.OpenAI, model: str) -> None:
    texts = ["the star", "one two"]
    alone = [
        door.completions.create(model=model, prompt=text, max_tokens=5).choices[0].text
        for text in texts
    ]
    said = door.completions.create(model=model, prompt=texts, max_tokens=5, n=2)

    assert [choice.index for choice in said.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in said.choices] == [alone[0], alone[0], alone[1], alone[1]]


def test_a_text_is_judged_token_by_token(
    door: openai.OpenAI, server: LiveServer, model: str
) -> None:
    """As evaluation harnesses ask: the text itself, with nothing or one token after it."""
    asked: dict[str, Any] = {"model": model, "prompt": "the star is", "echo": True, "logprobs": 2}
    judged = door.completions.create(**asked, max_tokens=0).choices[0]
    assert judged.text == "the star is"
    assert judged.logprobs is not None
    assert judged.logprobs.tokens is not None
    assert judged.logprobs.token_logprobs is not None
    assert judged.logprobs.top_logprobs is not None
    assert "".join(judged.logprobs.tokens) == "the star is"
    assert judged.logprobs.token_logprobs[0] is None
    assert all(value < 0 for value in judged.logprobs.token_logprobs[1:])
    for i, token in enumerate(judged.logprobs.tokens[1:], 1):
        # The one that is there is among them, likely or not.
        assert judged.logprobs.top_logprobs[i][token] == judged.logprobs.token_logprobs[i]
        assert 2 <= len(judged.logprobs.top_logprobs[i]) <= 3
    assert judged.logprobs.text_offset == [
        len("".join(judged.logprobs.tokens[:i])) for i in range(len(judged.logprobs.tokens))
    ]

    ids = list(server.model.text_ids("the star is"))
    more = door.completions.create(**asked | {"prompt": [ids]}, max_tokens=1).choices[0]
    assert more.logprobs is not None
    assert more.logprobs.token_logprobs is not None
    # The last one is that of the token that was generated, and the likeliest.
    assert more.logprobs.token_logprobs[:-1] == judged.logprobs.token_logprobs
    assert more.logprobs.top_logprobs is not None
    assert more.logprobs.token_logprobs[-1] == max(more.logprobs.top_logprobs[-1].values())


@pytest.mark.parametrize("prompt", ["", [], [[]], [0, 99999], ["a"] * 65])
def test_nothing_to_continue_is_refused(client: httpx.Client, model: str, prompt: Any) -> None:
    response = client.post("/v1/completions", json={"model": model, "prompt": prompt})

    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == "prompt"


def test_a_tool_gives_its_result_as_the_user_would(door: openai.OpenAI, model: str) -> None:
    call = {"type": "function", "id": "1", "function": {"name": "look", "arguments": "{}"}}
    turns: Any = [
        message("q", picture(1)),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "a star"},
    ]
    said = door.chat.completions.create(model=model, messages=turns, max_tokens=2)
    same = door.chat.completions.create(
        model=model, messages=[message("q\n\na star", picture(1))], max_tokens=2
    )

    assert said.usage == same.usage
