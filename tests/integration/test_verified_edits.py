"""Verified edits on the model that ships, over HTTP: taken, refused, in conflict, many at once.

Nothing here depends on what the model answers to a question; only on what an edit's own check has
established, and on pictures so alike that no model could tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.settings import Settings
from editing_core.heraldry.sample import Sample, draw_sample
from editing_core.types import ImageArray
from tests.integration.test_errors_table import check
from tests.support.server import LiveServer, data_uri, png


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings.load(
        data_dir=data_dir, device="cpu", threads=1, batch_limit=8, question_encoder="shipped"
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    yield server.client
    server.client.post("/admin/rollback", json={"to_version": 0})


def nearly(image: ImageArray, number: int) -> str:
    """The same picture for every eye; one channel of one pixel differs."""
    changed = image.copy()
    changed[0, number, 0] ^= 1
    return data_uri(png(changed))


def about(sample: Sample, question: int = 0, **fields: Any) -> dict[str, Any]:
    """A correction of that question, by default to its first wrong answer."""
    asked = sample.questions[question]
    return {
        "image": data_uri(png(sample.picture.image)),
        "prompt": asked.wordings[0],
        "target": asked.alternatives[0],
    } | fields


def post(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    response = client.post("/edits", json=body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def said(client: httpx.Client, body: dict[str, Any]) -> str:
    ask = {"image": body["image"], "prompt": body["prompt"]}
    text: str = client.post("/generate", json=ask).json()["text"]
    return text


def status(client: httpx.Client, edit: dict[str, Any]) -> str:
    found: str = client.get(f"/edits/{edit['id']}").json()["status"]
    return found


def test_what_is_accepted_holds_beside_all_others(client: httpx.Client) -> None:
    accepted = []
    for seed in range(500, 508):
        body = about(draw_sample(seed), seed % 3)
        response = client.post("/edits", json=body)
        if response.status_code == 201:
            made = response.json()
            assert (made["verified"], made["after"], made["damaged"]) == (True, body["target"], [])
            assert made["verified_version"] == made["version"] - 1
            accepted.append(body)
        else:
            assert response.json()["error"]["code"] in ("edit_not_effective", "edit_conflicts")

    assert len(accepted) >= 6
    assert [said(client, body) for body in accepted] == [body["target"] for body in accepted]


def test_a_contradiction_on_nearly_the_same_picture_is_a_conflict(client: httpx.Client) -> None:
    sample = draw_sample(510)
    first = post(client, about(sample))
    version = client.get("/versions").json()["version"]
    rival = about(sample, target="quite another", image=nearly(sample.picture.image, 1))

    error = check(client.post("/edits", json=rival), 422, "edit_conflicts", None)
    assert error["conflicts_with"] == [first["id"]]
    assert {"before", "after"} <= set(error)
    assert client.get("/versions").json()["version"] == version
    assert said(client, about(sample)) == first["target"]

    replaced = post(client, rival | {"supersedes": [first["id"]]})
    assert replaced["verified"] is True
    assert status(client, first) == "superseded"
    assert said(client, rival) == "quite another"


def test_report_commits_a_contradiction_and_says_so(client: httpx.Client) -> None:
    sample = draw_sample(511)
    first = post(client, about(sample))
    rival = about(sample, target="quite another", image=nearly(sample.picture.image, 1))

    made = post(client, rival | {"verify": "report"})

    assert made["verified"] is False
    assert status(client, first) == status(client, made) == "active"
    is_damaged = said(client, about(sample)) != first["target"]
    damage = {
        "edit_id": first["id"],
        "before": first["target"],
        "after": said(client, about(sample)),
    }
    assert made["damaged"] == ([damage] if is_damaged else [])
    assert is_damaged or made["after"] != "quite another"
    kept = client.get(f"/edits/{made['id']}").json()
    assert (kept["damaged"], kept["refinement_steps"]) == (
        made["damaged"],
        made["refinement_steps"],
    )
    unchecked = post(client, rival | {"verify": "off", "image": nearly(sample.picture.image, 2)})
    assert (unchecked["verified"], unchecked["damaged"]) == (None, [])


def test_the_same_correction_on_nearly_the_same_picture_is_none(client: httpx.Client) -> None:
    sample = draw_sample(512)
    made = [post(client, about(sample, image=nearly(sample.picture.image, n))) for n in range(3)]

    assert [edit["verified"] for edit in made] == [True] * 3


def test_putting_back_checks_for_conflicts_unless_forced(client: httpx.Client) -> None:
    sample = draw_sample(513)
    older = [post(client, about(sample, image=nearly(sample.picture.image, n))) for n in range(6)]
    for edit in older:
        assert client.post(f"/admin/edits/{edit['id']}/rollback").status_code == 200
    newer = post(client, about(sample, target="quite another"))

    refused = []
    for edit in older:
        version = client.get("/versions").json()["version"]
        response = client.post(f"/admin/edits/{edit['id']}/reinstate")
        if response.status_code == 422:
            error = check(response, 422, "edit_conflicts", None)
            assert error["conflicts_with"] == [newer["id"]]
            assert client.get("/versions").json()["version"] == version
            refused.append(edit)
        # As long as nothing was refused, the newer one's answer holds.
        assert said(client, about(sample)) == "quite another"
    assert refused

    forced = client.post(f"/admin/edits/{refused[0]['id']}/reinstate", json={"force": True})
    assert (forced.status_code, forced.json()["edit"]["status"]) == (200, "active")


def test_a_batch_is_answered_line_by_line(client: httpx.Client) -> None:
    sample, other = draw_sample(514), draw_sample(515)
    one = about(sample, target="one thing")
    body = {
        "edits": [
            one | {"idempotency_key": "first"},
            one | {"target": "another thing"},
            about(other) | {"colour": "red"},
            "no edit",
            about(other, target="x" * 4000),
            one | {"idempotency_key": "first"},
            about(sample, target="a third", image=nearly(sample.picture.image, 3)),
        ]
    }

    with client.stream("POST", "/edits/batch", json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        request_id = response.headers["x-request-id"]
        lines = [json.loads(line) for line in response.iter_lines()]

    *items, end = lines
    assert [line["index"] for line in items] == list(range(7))
    assert [line["status"] for line in items] == [201, 201, 400, 400, 422, 201, 422]
    codes = [line["error"]["code"] for line in items if "error" in line]
    assert codes == ["unknown_field", "invalid_field", "target_too_long", "edit_conflicts"]
    for line in items:
        if "error" in line:
            assert line["error"]["hint"]
            assert line["error"]["request_id"] == request_id
    first, second = items[0]["edit"], items[1]["edit"]
    assert (items[5]["edit"], items[5]["idempotent_replayed"]) == (first, True)
    assert items[6]["error"]["conflicts_with"] == [second["id"]]
    head = client.get("/versions").json()["version"]
    assert end == {"done": True, "version": head, "committed": 3, "failed": 4}
    assert second["version"] == head
    # In their slot, the later one won.
    assert [status(client, edit) for edit in (first, second)] == ["superseded", "active"]
    assert said(client, one) == "another thing"

    header = {"Idempotency-Key": "first"}
    alone = client.post("/edits", json=one, headers=header)
    assert (alone.json(), alone.headers["idempotent-replayed"]) == (first, "true")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_field", "edits"),
        ({"edits": []}, "invalid_field", "edits"),
        ({"edits": "all"}, "invalid_field", "edits"),
        ({"edits": [{}] * 9}, "invalid_field", "edits"),
        ({"edits": [{}], "verify": "off"}, "unknown_field", "verify"),
    ],
    ids=["missing", "empty", "type", "too-many", "unknown"],
)
def test_a_batch_that_is_none_is_refused_whole(
    client: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    check(client.post("/edits/batch", json=body), 400, code, param)


def test_keys_of_a_batch_are_checked_one_by_one(client: httpx.Client) -> None:
    keys = ["", "k" * 256, "naïve", 7]
    body = {"edits": [{"idempotency_key": key} | about(draw_sample(516)) for key in keys]}

    *lines, end = map(json.loads, client.post("/edits/batch", json=body).text.splitlines())

    assert [line["error"]["param"] for line in lines] == ["idempotency_key"] * 4
    assert (end["committed"], end["failed"]) == (0, 4)
