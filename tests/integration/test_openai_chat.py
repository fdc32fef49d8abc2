"""Chat completions and models through the official client, on the tiny random model."""

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


def errata(said: Any) -> dict[str, Any]:
    found: dict[str, Any] = said.model_extra["errata"]
    return found


def test_models_are_listed_and_looked_up(door: openai.OpenAI, model: str) -> None:
    names = [each.id for each in door.models.list()]
    one = door.models.retrieve(f"{model}@0")

    assert names == [model, f"{model}@base"]
    assert (one.id, one.object, one.owned_by) == (f"{model}@0", "model", "errata")
    assert one.model_extra == {"max_model_len": 192}
    assert one.created > 1_700_000_000


@pytest.mark.parametrize(
    ("name", "code"),
    [("nobody", "model_not_found"), ("@99999", "version_not_found"), ("@x", "model_not_found")],
)
def test_other_names_are_not_found(door: openai.OpenAI, model: str, name: str, code: str) -> None:
    wanted = f"{model}{name}" if name.startswith("@") else name
    for call in (
        lambda: door.models.retrieve(wanted),
        lambda: door.chat.completions.create(model=wanted, messages=[message("q")]),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert (refused.value.code, refused.value.param) == (code, "model")


def test_a_single_turn_is_what_generate_says(
    door: openai.OpenAI, client: httpx.Client, edit: Edit, model: str, image: str
) -> None:
    made = edit()
    body = {"prompt": "q", "image": image, "max_new_tokens": 12}
    plain = client.post("/generate", json=body).json()
    said = door.chat.completions.create(model=model, messages=[message("q", image)], max_tokens=12)

    (choice,) = said.choices
    assert said.id.startswith("chatcmpl-")
    assert (choice.message.role, choice.message.content) == ("assistant", plain["text"])
    assert choice.finish_reason == plain["finish_reason"]
    assert said.usage is not None
    assert said.usage.model_dump(exclude_none=True) == plain["usage"]
    assert errata(said)["version"] == made["version"]
    assert errata(said)["applied"] == plain["applied"]
    assert errata(said)["ignored"] == errata(said)["clamped"] == []


def test_an_edit_shows_and_so_does_its_rollback(
    door: openai.OpenAI, client: httpx.Client, edit: Edit, telling: str, model: str
) -> None:
    def ask(name: str, **more: Any) -> Any:
        return door.chat.completions.create(
            model=name, messages=[message("q", telling)], max_tokens=12, **more
        )

    before = ask(model)
    made = edit(image=telling)
    after = ask(model)
    assert [each["edit_id"] for each in errata(after)["applied"]] == [made["id"]]
    assert after.choices[0].message.content != before.choices[0].message.content
    for others in (
        ask(f"{model}@base"),
        ask(f"{model}@{made['version'] - 1}"),
        ask(model, extra_body={"errata": {"edits": "off"}}),
        ask(model, extra_body={"errata": {"at_version": made["version"] - 1}}),
    ):
        assert others.choices[0].message.content == before.choices[0].message.content
        assert errata(others)["applied"] == []
    assert errata(ask(f"{model}@base"))["version"] == made["version"]

    client.post(f"/admin/edits/{made['id']}/rollback")
    undone = ask(model, extra_body={"errata": {"explain": True}})
    assert undone.choices[0].message.content == before.choices[0].message.content
    considered = {each["edit_id"]: each["outcome"] for each in errata(undone)["candidates"]}
    assert considered[made["id"]] == "inactive"


def test_a_name_and_a_field_may_not_contradict(door: openai.OpenAI, model: str) -> None:
    for name, fields in ((f"{model}@base", {"edits": "on"}), (f"{model}@0", {"at_version": 1})):
        with pytest.raises(openai.BadRequestError) as refused:
            door.chat.completions.create(
                model=name, messages=[message("q")], extra_body={"errata": fields}
            )
        assert (refused.value.code, refused.value.param) == ("invalid_field", "errata")


def test_two_turns_are_routed_by_the_last_one(
    door: openai.OpenAI, edit: Edit, model: str, image: str
) -> None:
    """The picture came with the first question; what was said since changes no edit's weight."""
    made = edit()
    alone = door.chat.completions.create(model=model, messages=[message("q", image)], max_tokens=2)
    turns: list[Any] = [
        {"role": "system", "content": "Be brief."},
        message("What is it?", picture(5), image),
        {"role": "assistant", "content": "a star"},
        message("q"),
    ]
    said = door.chat.completions.create(model=model, messages=turns, max_tokens=2)

    assert [each["edit_id"] for each in errata(said)["applied"]] == [made["id"]]
    assert errata(said)["applied"] == errata(alone)["applied"]
    assert said.usage is not None
    assert alone.usage is not None
    assert said.usage.prompt_tokens > alone.usage.prompt_tokens + 16  # another picture

    other = [*turns[:-1], message("q", picture(6))]
    said = door.chat.completions.create(model=model, messages=other, max_tokens=2)
    assert errata(said)["applied"] == []


def test_a_stream_joins_to_the_whole(
    door: openai.OpenAI, edit: Edit, model: str, image: str
) -> None:
    made = edit()
    asked: dict[str, Any] = {"model": model, "messages": [message("q", image)], "max_tokens": 24}
    whole = door.chat.completions.create(**asked)
    chunks = list(
        door.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *texts, ending, last = chunks

    assert texts[0].choices[0].delta.role == "assistant"
    joined = "".join(chunk.choices[0].delta.content or "" for chunk in texts)
    assert joined == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert ending.choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [each["edit_id"] for each in errata(last)["applied"]] == [made["id"]]
    assert errata(ending) == errata(last)

    *_, ending = door.chat.completions.create(**asked, stream=True)
    assert ending.choices[0].finish_reason == whole.choices[0].finish_reason
    assert ending.usage is None


def test_several_answers_are_streamed_apart(door: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {
        "model": model,
        "messages": [message("q")],
        "max_tokens": 8,
        "n": 3,
        "temperature": 1.0,
        "seed": 5,
    }
    whole = door.chat.completions.create(**asked)
    joined = dict.fromkeys(range(3), "")
    for chunk in door.chat.completions.create(**asked, stream=True):
        joined[chunk.choices[0].index] += chunk.choices[0].delta.content or ""

    assert [joined[i] for i in range(3)] == [each.message.content for each in whole.choices]
    assert len(set(joined.values())) > 1
    assert whole.usage is not None
    assert whole.usage.prompt_tokens < 64  # counted once


def test_log_probabilities_are_those_of_the_model(door: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {
        "model": model,
        "messages": [message("q")],
        "max_tokens": 6,
        "logprobs": True,
        "top_logprobs": 3,
    }
    said = door.chat.completions.create(**asked).choices[0]
    assert said.logprobs is not None
    assert said.logprobs.content is not None

    written = b"".join(bytes(each.bytes or []) for each in said.logprobs.content)
    assert written.decode(errors="replace").strip() == said.message.content
    for token in said.logprobs.content:
        assert len(token.top_logprobs) == 3
        # Greedy: the first of the likeliest is what was written.
        assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == (
            token.token,
            token.logprob,
        )
        assert token.logprob <= 0
    *_, ending = door.chat.completions.create(**asked, stream=True)
    streamed = ending.choices[0].logprobs
    assert streamed is not None
    assert streamed.model_dump() == said.logprobs.model_dump()

    with pytest.raises(openai.BadRequestError) as refused:
        door.chat.completions.create(**asked | {"logprobs": False})
    assert refused.value.param == "top_logprobs"


def test_json_keeps_to_its_schema(door: openai.OpenAI, model: str, image: str) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "charges": {"enum": [1, 2, 3]}},
        "required": ["colour", "charges"],
        "additionalProperties": False,
    }
    said = door.chat.completions.create(
        model=model,
        messages=[message("q", image)],
        temperature=1.0,
        n=4,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "emblem", "schema": schema, "strict": True},
        },
    )
    for choice in said.choices:
        assert choice.finish_reason == "stop"
        found = json.loads(choice.message.content or "")
        assert found["colour"] in ("red", "blue")
        assert found["charges"] in (1, 2, 3)
        assert set(found) == {"colour", "charges"}

    some = door.chat.completions.create(
        model=model, messages=[message("q")], max_tokens=3, response_format={"type": "json_object"}
    )
    assert (some.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "invalid_field"),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no"}}},
            "schema_not_supported",
        ),
        ({"type": "grammar"}, "unsupported_parameter"),
    ],
)
def test_what_no_answer_can_be_held_to_is_refused(
    door: openai.OpenAI, model: str, form: Any, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        door.chat.completions.create(model=model, messages=[message("q")], response_format=form)
    assert (refused.value.code, refused.value.param) == (code, "response_format")


TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def test_what_is_ignored_is_said_and_what_is_too_long_is_clamped(
    door: openai.OpenAI, model: str
) -> None:
    said = door.chat.completions.create(
        model=model,
        messages=[message("q")],
        stop=[],
        max_tokens=32768,
        user="me",
        store=True,
        presence_penalty=0,
        logit_bias={},
        tools=[TOOL],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning_effort="low",
        extra_body={"top_k": 5, "errata": {}, "keep_alive": None, "functions": []},
    )

    assert sorted(errata(said)["ignored"]) == ["reasoning_effort", "tools", "top_k"]
    assert errata(said)["clamped"] == ["max_tokens"]
    assert said.usage is not None
    assert said.usage.total_tokens <= 192
    nothing = door.chat.completions.create(
        model=model, messages=[message("q")], max_tokens=1, tools=[], n=1
    )
    assert errata(nothing)["ignored"] == errata(nothing)["clamped"] == []


def test_penalties_and_biases_are_honoured(door: openai.OpenAI, model: str) -> None:
    def ask(**fields: Any) -> Any:
        return door.chat.completions.create(
            model=model, messages=[message("q")], max_tokens=8, logprobs=True, **fields
        ).choices[0]

    def tokens(choice: Any) -> list[str]:
        return [each.token for each in choice.logprobs.content]

    forced = ask(logit_bias={"40": 100})
    assert len(set(tokens(forced))) == 1
    varied = ask(logit_bias={"40": 50, "41": 50}, presence_penalty=2, frequency_penalty=2)
    assert len(tokens(varied)) > 1
    likeliest = ask(temperature=2.0, seed=1, extra_body={"min_p": 1.0})
    assert tokens(likeliest) == tokens(ask())
    with pytest.raises(openai.BadRequestError) as refused:
        ask(logit_bias={"99999": 1})
    assert refused.value.param == "logit_bias"


def test_an_image_may_be_a_bare_string(
    client: httpx.Client, edit: Edit, model: str, image: str
) -> None:
    made = edit()
    content = [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": image}]
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
    said = client.post("/v1/chat/completions", json=body).json()

    assert [each["edit_id"] for each in said["errata"]["applied"]] == [made["id"]]
