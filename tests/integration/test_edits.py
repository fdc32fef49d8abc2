"""Edits over HTTP: committed, listed, superseded, rolled back, restored, replayed, explained."""

from __future__ import annotations

import itertools
import re
import threading
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Edit, answer
from tests.support.server import LiveServer, eventually

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def statuses(client: httpx.Client, *edits: dict[str, Any]) -> list[str]:
    return [client.get(f"/edits/{edit['id']}").json()["status"] for edit in edits]


def switch(client: httpx.Client, edit: dict[str, Any], how: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/admin/edits/{edit['id']}/{how}", json=body)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def test_an_edit_has_every_field(client: httpx.Client, edit: Edit, server: LiveServer) -> None:
    before = server.version()

    made = edit(
        prompt=" What  is it? ",
        target=" caf\u0065\u0301 ",
        note="n",
        tags=["a", "a"],
        rephrases=["r"],
        verify="report",
    )

    assert made["version"] == before + 1 == server.version()
    assert ULID.fullmatch(made["id"])
    assert TIME.fullmatch(made["created_at"])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", made["image_digest"])
    assert made["target"] == "caf\u00e9"
    assert (made["prompt"], made["editor"], made["status"]) == (
        " What  is it? ",
        "liveedit",
        "active",
    )
    assert (made["note"], made["tags"], made["rephrases"]) == ("n", ["a"], ["r"])
    assert (made["verified"], made["verified_version"]) == (False, before)
    assert isinstance(made["before"], str)
    assert isinstance(made["after"], str)
    assert made["refinement_steps"] in range(25)
    assert (made["supersedes"], made["created_by"]) == ([], "local")
    assert set(made["timings_ms"]) - {"refine"} == {"encode", "verify", "commit", "total"}
    assert all(value > 0 for value in made["timings_ms"].values())

    read = client.get(f"/edits/{made['id']}").json()
    history = read.pop("history")
    assert read.pop("fired") == {"count": 0, "last_at": None}
    assert read == made
    assert [event["type"] for event in history] == ["edit_created"]
    assert history[0]["changes"] == [{"edit_id": made["id"], "from": None, "to": "active"}]


def test_without_verification_nothing_is_claimed(edit: Edit) -> None:
    made = edit(verify="off")

    assert [made[f] for f in ("before", "after", "verified", "verified_version")] == [None] * 4


def test_before_and_after_are_what_a_client_gets(
    client: httpx.Client, edit: Edit, telling: str
) -> None:
    untouched = answer(client, telling, max_new_tokens=80)["text"]
    made = edit(image=telling, verify="report")
    edited = answer(client, telling, max_new_tokens=80)

    assert (
        made["before"]
        == untouched
        == answer(client, telling, edits="off", max_new_tokens=80)["text"]
    )
    assert made["after"] == edited["text"] != untouched
    assert [a["edit_id"] for a in edited["applied"]] == [made["id"]]


def test_an_edit_fires_until_it_is_rolled_back_and_again_when_reinstated(
    client: httpx.Client, edit: Edit, telling: str
) -> None:
    base = answer(client, telling)
    made = edit(image=telling)
    edited = answer(client, telling)
    assert edited["text"] != base["text"]
    assert edited["version"] == made["version"]
    (applied,) = edited["applied"]
    assert set(applied) == {"edit_id", "image_similarity", "text_similarity", "weight"}
    assert applied["image_similarity"] == pytest.approx(1.0)

    undone = switch(client, made, "rollback", reason="wrong")
    assert undone["changed"] is True
    assert undone["version"] == made["version"] + 1
    assert undone["edit"]["status"] == "rolled_back"
    assert answer(client, telling)["text"] == base["text"]
    assert answer(client, telling)["applied"] == []

    again = switch(client, made, "rollback")
    assert (again["changed"], again["version"]) == (False, undone["version"])

    redone = switch(client, made, "reinstate", force=True)
    assert (redone["changed"], redone["edit"]["status"]) == (True, "active")
    assert answer(client, telling)["text"] == edited["text"]
    assert switch(client, made, "reinstate")["changed"] is False
    history = client.get(f"/edits/{made['id']}").json()["history"]
    assert [event["type"] for event in history] == ["edit_created", "rolled_back", "reinstated"]
    assert history[1]["reason"] == "wrong"


def test_the_bodies_of_rollback_and_reinstate_may_be_absent(
    client: httpx.Client, edit: Edit
) -> None:
    path = f"/admin/edits/{edit()['id']}"

    assert client.post(f"{path}/rollback").json()["changed"] is True
    assert client.post(f"{path}/reinstate").json()["changed"] is True


def test_in_a_slot_the_newest_is_active(client: httpx.Client, edit: Edit) -> None:
    a = edit(prompt="what is it", target="one")
    b = edit(prompt="  what   is it ", target="two")
    other = edit(prompt="something else", target="two")
    c = edit(prompt="what is\u00a0it", target="three")
    assert statuses(client, a, b, c, other) == ["superseded", "superseded", "active", "active"]

    switch(client, c, "rollback")
    assert statuses(client, a, b, c) == ["superseded", "active", "rolled_back"]
    switch(client, c, "reinstate", force=True)
    assert statuses(client, a, b, c) == ["superseded", "superseded", "active"]
    switch(client, b, "rollback")
    assert statuses(client, a, b, c) == ["superseded", "rolled_back", "active"]
    switch(client, c, "rollback")
    assert statuses(client, a, b, c) == ["active", "rolled_back", "rolled_back"]
    switch(client, b, "reinstate", force=True)
    assert statuses(client, a, b, c) == ["superseded", "active", "rolled_back"]


def test_an_edit_supersedes_those_it_names(client: httpx.Client, edit: Edit, image: str) -> None:
    a = edit(prompt="one")
    b = edit(prompt="another", supersedes=[a["id"], a["id"]])
    assert b["supersedes"] == [a["id"]]
    assert statuses(client, a, b) == ["superseded", "active"]
    c = edit(prompt="another", target="red")
    assert statuses(client, a, b, c) == ["superseded", "superseded", "active"]
    assert {x["edit_id"] for x in answer(client, image)["applied"]} <= {c["id"]}

    switch(client, b, "rollback")
    assert statuses(client, a, b, c) == ["active", "rolled_back", "active"]


def test_restoring_a_version_brings_back_its_answers(
    client: httpx.Client, edit: Edit, telling: str, server: LiveServer
) -> None:
    a = edit(image=telling, target="one")
    with_a = answer(client, telling)
    b = edit(image=telling, target="two")
    assert answer(client, telling)["text"] != with_a["text"]
    head = server.version()

    response = client.post(
        "/admin/rollback",
        json={"to_version": a["version"], "reason": "back"},
        headers={"If-Match": f'"{head}"'},
    )

    assert response.json() == {
        "version": head + 1,
        "changed": True,
        "rolled_back": [b["id"]],
        "reinstated": [],
        "superseded": [],
    }
    assert answer(client, telling)["text"] == with_a["text"]
    event = client.get(f"/admin/events?after={head}").json()["data"][0]
    assert (event["type"], event["from_version"], event["reason"]) == (
        "restored",
        a["version"],
        "back",
    )

    again = client.post("/admin/rollback", json={"to_version": a["version"]}).json()
    assert (again["changed"], again["version"]) == (False, head + 1)
    forth = client.post("/admin/rollback", json={"to_version": head}).json()
    assert (forth["reinstated"], forth["superseded"]) == ([b["id"]], [a["id"]])
    assert statuses(client, a, b) == ["superseded", "active"]


def test_any_version_can_be_asked(client: httpx.Client, edit: Edit, telling: str) -> None:
    base = answer(client, telling)
    a = edit(image=telling, target="one")
    with_a = answer(client, telling)
    switch(client, a, "rollback")
    edit(image=telling, target="two")

    then = answer(client, telling, at_version=a["version"])
    assert (then["text"], then["applied"]) == (with_a["text"], with_a["applied"])
    assert then["version"] == a["version"]
    nothing = answer(client, telling, at_version=0)
    assert (nothing["text"], nothing["applied"], nothing["version"]) == (base["text"], [], 0)
    now = answer(client, telling, min_version=a["version"] + 2)
    assert now["version"] == a["version"] + 2


def test_explain_names_what_did_not_take_part(client: httpx.Client, edit: Edit, image: str) -> None:
    old = edit(target="one")
    new = edit(target="two")

    explained = answer(client, image, explain=True)["candidates"]

    assert [(c["edit_id"], c["outcome"]) for c in explained] == [
        (new["id"], "applied"),
        (old["id"], "inactive"),
    ]
    assert explained[1]["weight"] == 0
    assert "candidates" not in answer(client, image)
    assert answer(client, image, explain=True, edits="off")["candidates"] == []
    assert answer(client, None, explain=True)["candidates"] == []
    then = answer(client, image, explain=True, at_version=old["version"])["candidates"]
    assert [(c["edit_id"], c["outcome"]) for c in then] == [(old["id"], "applied")]


def test_lists_are_paged_newest_first(client: httpx.Client, edit: Edit) -> None:
    made = [edit(prompt=f"p{i}", target="Blue sky", tags=["page"]) for i in range(5)]
    switch(client, made[1], "rollback")
    newest = [m["id"] for m in reversed(made)]

    first = client.get("/edits?tag=page&limit=2").json()
    assert [e["id"] for e in first["data"]] == newest[:2]
    assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, newest[1])
    rest = client.get(f"/edits?tag=page&after={first['last_id']}").json()
    assert [e["id"] for e in rest["data"]] == newest[2:]
    assert rest["has_more"] is False

    active = client.get("/edits?status=active&tag=page").json()["data"]
    assert [e["id"] for e in active] == [i for i in newest if i != made[1]["id"]]
    assert client.get("/edits?status=rolled_back&tag=page").json()["data"][0]["id"] == newest[3]
    assert [e["prompt"] for e in client.get("/edits?q=P3&tag=page").json()["data"]] == ["p3"]
    assert len(client.get("/edits?q=blue SKY&tag=page").json()["data"]) == 5
    nothing = client.get("/edits?tag=no-such").json()
    assert nothing == {"object": "list", "data": [], "has_more": False, "last_id": None}


def test_the_log_is_whole_and_chained(client: httpx.Client, edit: Edit) -> None:
    switch(client, edit(), "rollback")
    events: list[dict[str, Any]] = []
    while True:
        after = events[-1]["version"] if events else 0
        page = client.get(f"/admin/events?after={after}&limit=7").json()
        assert page["object"] == "list"
        events += page["data"]
        assert page["last_version"] == events[-1]["version"]
        if not page["has_more"]:
            break

    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["previous_digest"] is None
    for before, after_ in itertools.pairwise(events):
        assert after_["previous_digest"] == before["digest"]
    assert client.get(f"/admin/events?after={len(events)}").json()["data"] == []


def test_versions_say_what_runs(client: httpx.Client, edit: Edit) -> None:
    made = edit()
    versions = client.get("/versions").json()

    assert versions["version"] == made["version"]
    assert versions["active_edits"] == len(
        client.get("/edits?status=active&limit=200").json()["data"]
    )
    assert versions["editors"]["liveedit"]["default"] is True
    assert versions["backbone"]["device"] == "cpu"
    assert versions["backbone"]["dtype"] == "fp32"
    assert set(versions["router"]) == {
        "fingerprint",
        "tau",
        "rho",
        "false_fire_rate",
        "image_key_model",
    }


def test_a_replay_gives_the_same_answer_and_makes_nothing(
    client: httpx.Client, image: str, server: LiveServer
) -> None:
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"}
    headers = {"Idempotency-Key": "a key"}
    first = client.post("/edits", json=body, headers=headers)
    version = server.version()
    replay = client.post("/edits", json=dict(reversed(body.items())), headers=headers)

    assert (replay.status_code, replay.content) == (201, first.content)
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert server.version() == version

    other = client.post("/edits", json=body | {"target": "red"}, headers=headers)
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_mismatch"


def test_a_refused_request_does_not_use_its_key_up(client: httpx.Client, image: str) -> None:
    body = {"image": image, "prompt": "q", "target": "blue"}
    headers = {"Idempotency-Key": "second chance"}

    assert client.post("/edits", json=body, headers=headers).status_code == 422
    again = client.post("/edits", json=body | {"verify": "off"}, headers=headers)
    assert again.status_code == 201


def test_the_same_key_twice_at_once_makes_one_edit(
    client: httpx.Client, image: str, server: LiveServer
) -> None:
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"}
    headers = {"Idempotency-Key": "at once"}
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(httpx.post(f"{server.url}/edits", json=body, headers=headers, timeout=120))

    first = threading.Thread(target=send)
    with server.device_held():
        first.start()
        eventually(lambda: server.waiting == 1)
        refused = client.post("/edits", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            409,
            "idempotency_in_progress",
        )
        mismatch = client.post("/edits", json=body | {"target": "x"}, headers=headers)
        assert mismatch.json()["error"]["code"] == "idempotency_mismatch"
    first.join()

    assert answers[0].status_code == 201
    assert client.post("/edits", json=body, headers=headers).content == answers[0].content


def test_many_edits_at_once_are_ordered_without_gaps(
    server: LiveServer, image: str, client: httpx.Client
) -> None:
    head = server.version()
    made: list[dict[str, Any]] = []

    def send(number: int) -> None:
        body = {"image": image, "prompt": f"p{number % 3}", "target": str(number), "verify": "off"}
        made.append(httpx.post(f"{server.url}/edits", json=body, timeout=120).json())

    threads = [threading.Thread(target=send, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    by_version = sorted(made, key=lambda edit: int(edit["version"]))
    assert [edit["version"] for edit in by_version] == list(range(head + 1, head + 10))
    assert [edit["id"] for edit in by_version] == sorted(edit["id"] for edit in made)
    active = [
        edit
        for edit, status in zip(made, statuses(client, *made), strict=True)
        if status == "active"
    ]
    assert sorted(edit["prompt"] for edit in active) == ["p0", "p1", "p2"]


@pytest.mark.in_a_thread
def test_an_edit_is_verified_again_when_its_neighbourhood_changed(
    client: httpx.Client, edit: Edit, telling: str, server: LiveServer
) -> None:
    """A rollback does not wait for a verification; the verification sees it nonetheless."""
    base = answer(client, telling, max_new_tokens=80)["text"]
    neighbour = edit(image=telling, prompt="q", target="one", verify="report")
    assert neighbour["after"] != base
    release_encoding, release_verifying = threading.Event(), threading.Event()
    encoding_held, verifying_held = threading.Event(), threading.Event()
    answers: list[httpx.Response] = []

    def hold(held: threading.Event, release: threading.Event) -> Any:
        def wait(_row: int, _text: str) -> None:
            held.set()
            release.wait(120)

        return server.hold(wait)

    def send() -> None:
        body = {"image": telling, "prompt": "other words", "target": "two", "verify": "report"}
        answers.append(httpx.post(f"{server.url}/edits", json=body, timeout=120))

    ends = [hold(encoding_held, release_encoding)]
    assert encoding_held.wait(120)
    sender = threading.Thread(target=send)
    sender.start()
    eventually(lambda: server.service.engine.queued == 1)
    ends.append(hold(verifying_held, release_verifying))
    eventually(lambda: server.service.engine.queued == 2)
    release_encoding.set()
    assert verifying_held.wait(120)
    eventually(lambda: server.service.engine.queued == 1)
    undone = switch(client, neighbour, "rollback")
    release_verifying.set()
    sender.join()
    for end in ends:
        end()

    made = answers[0].json()
    assert made["verified_version"] == undone["version"]
    assert made["version"] == undone["version"] + 1
    untouched = answer(client, telling, prompt="other words", edits="off", max_new_tokens=80)
    assert made["before"] == untouched["text"]


def test_what_an_event_changed_is_read_in_pages(client: httpx.Client, edit: Edit) -> None:
    first, second = edit(), edit(target="red")
    path = f"/admin/events/{second['version']}/changes"
    change = {"edit_id": first["id"], "from": "active", "to": "superseded"}
    page = client.get(path, params={"limit": 1}).json()
    assert page == {"object": "list", "data": [change], "has_more": True, "last": 1}
    rest = client.get(path, params={"after": page["last"]}).json()
    assert rest["data"] == [{"edit_id": second["id"], "from": None, "to": "active"}]
    assert (rest["has_more"], rest["last"]) == (False, 2)
    beyond = client.get("/admin/events/99999/changes")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (404, "version_not_found")
