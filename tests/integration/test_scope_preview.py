"""Where an edit will apply, over HTTP: the shipped question encoder on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.settings import Settings
from tests.support.server import LiveServer, picture

PROMPT = "What is the capital?"
OTHER = "Who is the mayor of the capital?"


@pytest.fixture(scope="module")
def asking(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        question_encoder="shipped",
    )
    with LiveServer(settings) as live:
        yield live


def preview(server: LiveServer, **body: Any) -> dict[str, Any]:
    response = server.client.post("/scope/preview", json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def questions(found: list[dict[str, Any]]) -> list[str]:
    return [each["question"] for each in found]


def test_wordings_will_and_look_alikes_will_not(asking: LiveServer) -> None:
    found = preview(asking, prompt=PROMPT, questions=["Which city is the capital?", OTHER])
    assert found["prompt"] == PROMPT
    assert [each["applies"] for each in found["asked"]] == [True, False]
    assert found["will"]
    assert found["will_not"]
    for each in found["will"]:
        assert each["applies"]
        assert each["gate"] >= found["rho"]
        assert not each["excluded"]
    for each in found["will_not"]:
        assert each["excluded"] or each["gate"] < found["rho"]
    for side in ("will", "will_not"):
        gates = [each["gate"] for each in found[side]]
        assert gates == sorted(gates, reverse=True)
        assert len(gates) <= 8
        assert PROMPT not in questions(found[side])


def test_scope_that_an_edit_does_not_have_yet(asking: LiveServer) -> None:
    taken = preview(asking, prompt=PROMPT)["will"][0]["question"]
    without = preview(asking, prompt=PROMPT, not_for=[taken], questions=[taken], limit=40)
    assert not without["asked"][0]["applies"]
    assert taken not in questions(without["will"]) + questions(without["will_not"])
    added = preview(asking, prompt=PROMPT, rephrases=[OTHER], questions=[OTHER])
    assert added["asked"][0]["applies"]
    assert added["asked"][0]["matched"] == OTHER


def test_an_edits_own_scope_counts(asking: LiveServer) -> None:
    body = {"image": picture(3), "prompt": PROMPT, "target": "blue", "verify": "off"}
    made = asking.client.post("/edits", json=body | {"rephrases": [OTHER]}).json()
    found = preview(asking, edit_id=made["id"], questions=[OTHER], limit=0)
    assert found["asked"][0]["applies"]
    assert (found["will"], found["will_not"]) == ([], [])
    assert asking.version() == made["version"]


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({}, 400, "missing_field", "prompt"),
        ({"prompt": "q", "edit_id": "x"}, 400, "invalid_field", "prompt"),
        ({"prompt": " "}, 400, "invalid_field", "prompt"),
        ({"edit_id": "nobody"}, 404, "edit_not_found", "id"),
        ({"prompt": "q", "questions": ["q"] * 33}, 400, "invalid_field", "questions"),
        ({"prompt": "q", "limit": 41}, 400, "invalid_field", "limit"),
        ({"prompt": "q", "not_for": ["q"]}, 400, "invalid_field", "not_for"),
        ({"prompt": "q", "rephrases": ["a", "a"]}, 400, "invalid_field", "rephrases"),
        ({"prompt": "q", "colour": 1}, 400, "unknown_field", "colour"),
    ],
)
def test_what_is_refused(
    asking: LiveServer, body: dict[str, Any], status: int, code: str, param: str
) -> None:
    response = asking.client.post("/scope/preview", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)


def test_a_full_queue_refuses_it(asking: LiveServer) -> None:
    engine = asking.service.engine
    tickets = [engine.ticket() for _ in range(engine.overload_status().limit)]
    for ticket in tickets:
        ticket.__enter__()
    try:
        response = asking.client.post("/scope/preview", json={"prompt": PROMPT})
    finally:
        for ticket in tickets:
            ticket.__exit__(None, None, None)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")


def test_a_server_without_an_encoder_says_so(client: httpx.Client) -> None:
    response = client.post("/scope/preview", json={"prompt": PROMPT})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (409, "no_question_encoder")
    assert error["hint"]
