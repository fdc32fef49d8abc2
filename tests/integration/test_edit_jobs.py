"""Edits that are answered 202: pending, then committed, failed or cancelled, and never two of them.

Here every edit is one, since none is waited for. While the device is held nothing of it happens.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app.settings import Settings
from editing_core.editable_model import EditableModel
from editing_core.types import EditArtifact, EditRequest, ImageArray, OnProgress, PictureKey
from tests.integration.conftest import answer
from tests.integration.test_errors_table import RESTORE_99999
from tests.support.server import LiveServer, eventually, picture
from tests.support.store import alter_jobs

Start = Callable[..., LiveServer]

REFUSED = {"verify": "strict", "target": "sphinx of black quartz, judge my vow! 4,1;7"}
"""More letters than a few steps of refinement can teach a random model."""


@pytest.fixture(scope="module")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    data_dir = tmp_path_factory.mktemp("data")
    settings = Settings.load(
        model=str(tiny_checkpoint),
        data_dir=data_dir,
        device="cpu",
        edit_wait_s=0,
        refine_steps=1,
        queue_limit=4,
    )
    with LiveServer(settings) as live:
        yield live


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path) -> Start:
    """A server on this test's data directory."""

    def begin(**more: Any) -> LiveServer:
        fields = {"model": str(tiny_checkpoint), "edit_wait_s": 0, "refine_steps": 1} | more
        return LiveServer(Settings.load(data_dir=tmp_path / "data", device="cpu", **fields))

    return begin


def correction(image: str, /, **fields: Any) -> dict[str, Any]:
    return {"image": image, "prompt": "q", "target": "blue", "verify": "off"} | fields


def post(client: httpx.Client, image: str, *, key: str | None = None, **fields: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/edits", json=correction(image, **fields), headers=headers)


def ordered(client: httpx.Client, image: str, **fields: Any) -> dict[str, Any]:
    """An edit that was answered 202."""
    response = post(client, image, **fields)
    assert response.status_code == 202, response.text
    made: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/edits/{made['id']}"
    return made


def read(client: httpx.Client, edit: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/edits/{edit['id']}").json()
    return found


def ended(client: httpx.Client, edit: dict[str, Any]) -> dict[str, Any]:
    """The edit, once it is no longer pending."""
    eventually(lambda: read(client, edit)["status"] != "pending")
    return read(client, edit)


def cancel(client: httpx.Client, edit: dict[str, Any]) -> dict[str, Any]:
    response = client.post(f"/edits/{edit['id']}/cancel")
    assert response.status_code == 200, response.text
    view: dict[str, Any] = response.json()
    return view


def code(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def test_an_edit_is_pending_and_then_active(server: LiveServer, image: str) -> None:
    client, version = server.client, server.version()
    with server.device_held():
        first = ordered(client, image, note="n", tags=["a"], rephrases=["r"])
        second = ordered(client, image, prompt="other")
        assert (first["status"], first["version"]) == ("pending", None)
        assert (first["note"], first["tags"], first["rephrases"]) == ("n", ["a"], ["r"])
        assert [first[f] for f in ("before", "after", "verified", "verified_version")] == [None] * 4
        assert first["progress"] == {"stage": "queue", "done": 0, "total": None}
        assert "error" not in first
        assert read(client, second)["history"] == []
        assert server.version() == version
        assert client.get("/admin/events?after=0&limit=200").json()["last_version"] == version

    made, other = ended(client, first), ended(client, second)
    assert (made["status"], made["version"]) == ("active", version + 1)
    assert (other["status"], other["version"]) == ("active", version + 2)
    assert [event["type"] for event in made["history"]] == ["edit_created"]
    assert not {"progress", "error"} & set(made)
    kept = ("id", "created_at", "created_by", "image_digest", "note", "tags", "rephrases")
    assert [made[f] for f in kept] == [first[f] for f in kept]
    assert made["id"] in {a["edit_id"] for a in answer(client, image)["applied"]}
    assert _jobs(server) == _jobs(server, "failed") + _jobs(server, "cancelled")


def _jobs(server: LiveServer, state: str = "%") -> int:
    file = server.runtime.settings.data_dir / "errata.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        query = "SELECT count(*) FROM edit_jobs WHERE state LIKE ?"
        return int(connection.execute(query, (state,)).fetchone()[0])


def test_what_can_be_told_at_once_is_told_at_once(server: LiveServer, image: str) -> None:
    client, before = server.client, _jobs(server)
    with server.device_held():
        refusals: list[tuple[dict[str, Any], tuple[int, str, str]]] = [
            ({"target": "why " * 60}, (422, "target_too_long", "target")),
            ({"prompt": "why " * 500}, (422, "context_too_long", "prompt")),
            ({"image": "aGVsbG8="}, (415, "image_format_unsupported", "image")),
            ({"editor": "unheard-of"}, (400, "invalid_field", "editor")),
            ({"supersedes": ["x"]}, (404, "edit_not_found", "supersedes")),
        ]
        for fields, expected in refusals:
            assert code(client.post("/edits", json=correction(image, **fields))) == expected
    assert _jobs(server) == before


def test_an_edit_that_verification_refuses_fails(server: LiveServer, image: str) -> None:
    client, version = server.client, server.version()

    failed = ended(client, ordered(client, image, key="refused", **REFUSED))

    assert (failed["status"], failed["version"]) == ("failed", None)
    error = failed["error"]
    assert (error["code"], error["type"]) == ("edit_not_effective", "invalid_request_error")
    assert error["hint"]
    assert error["request_id"]
    assert isinstance(error["before"], str)
    assert "progress" not in failed
    assert server.version() == version
    assert cancel(client, failed)["status"] == "failed"
    replay = post(client, image, key="refused", **REFUSED)
    assert (replay.status_code, replay.json()["status"]) == (200, "failed")
    assert replay.json()["error"] == error
    assert replay.headers["idempotent-replayed"] == "true"


def test_a_replay_tells_how_the_edit_stands_by_then(server: LiveServer, image: str) -> None:
    client = server.client
    with server.device_held():
        first = ordered(client, image, key="stands")
        replay = post(client, image, key="stands")
        assert (replay.status_code, replay.json()["id"]) == (202, first["id"])
        assert replay.headers["idempotent-replayed"] == "true"
        assert replay.headers["location"] == f"/edits/{first['id']}"
        mismatch = post(client, image, key="stands", target="red")
        assert code(mismatch)[:2] == (422, "idempotency_mismatch")
    made = ended(client, first)

    replay = post(client, image, key="stands")
    assert replay.status_code == 201
    assert replay.json() == {name: made[name] for name in made if name not in ("history", "fired")}
    client.post(f"/admin/edits/{first['id']}/rollback")
    assert post(client, image, key="stands").json()["status"] == "rolled_back"
    mismatch = post(client, image, key="stands", target="red")
    assert code(mismatch)[:2] == (422, "idempotency_mismatch")


def test_a_cancelled_edit_is_never_made(server: LiveServer, image: str) -> None:
    client, version = server.client, server.version()
    with server.device_held():
        running = ordered(client, image, key="gone")
        eventually(lambda: server.service.engine.queued == 1)
        queued = ordered(client, image)
        assert cancel(client, queued)["status"] == "cancelled"
        assert cancel(client, running)["status"] == "cancelled"
        assert cancel(client, running) == cancel(client, running)
    assert answer(client, image)["applied"] == []

    later = ended(client, ordered(client, image))
    assert (later["status"], later["version"]) == ("active", version + 1)
    assert [read(client, e)["status"] for e in (running, queued)] == ["cancelled"] * 2
    replay = post(client, image, key="gone")
    assert (replay.status_code, replay.json()["status"]) == (200, "cancelled")
    refused = client.post(f"/edits/{later['id']}/cancel")
    assert code(refused) == (409, "edit_committed", "id")
    assert code(client.post("/edits/nobody/cancel")) == (404, "edit_not_found", "id")


def test_what_is_not_committed_cannot_be_taken_back_or_replaced(
    server: LiveServer, image: str
) -> None:
    client = server.client
    with server.device_held():
        edit = ordered(client, image)
        for how in ("rollback", "reinstate"):
            refused = client.post(f"/admin/edits/{edit['id']}/{how}")
            assert code(refused) == (409, "edit_not_committed", "id")
        refused = post(client, image, supersedes=[edit["id"]])
        assert code(refused) == (409, "edit_not_committed", "supersedes")
        cancel(client, edit)
    assert client.post("/admin/rollback", json=RESTORE_99999).status_code == 404


def test_lists_hold_them_in_the_order_in_which_they_were_asked_for(
    server: LiveServer, image: str
) -> None:
    client = server.client
    made = [ended(client, ordered(client, image, prompt=f"p{i}", tags=["list"])) for i in range(2)]
    failed = ended(client, ordered(client, image, tags=["list"], **REFUSED))
    with server.device_held():
        pending = [ordered(client, image, prompt=f"w{i}", tags=["list"]) for i in range(3)]
        cancel(client, pending[1])
        newest = [e["id"] for e in reversed([*made, failed, *pending])]

        pages, after = [], ""
        while True:
            page = client.get(f"/edits?tag=list&limit=2{after}").json()
            pages.append([e["id"] for e in page["data"]])
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        assert pages == [newest[:2], newest[2:4], newest[4:]]

        def listed(query: str) -> list[str]:
            found = client.get(f"/edits?tag=list&{query}").json()["data"]
            return [e["id"] for e in found]

        assert listed("status=pending") == [pending[2]["id"], pending[0]["id"]]
        assert listed("status=cancelled") == [pending[1]["id"]]
        assert listed("status=failed") == [failed["id"]]
        assert listed("status=active") == [e["id"] for e in reversed(made)]
        assert listed("q=W2") == [pending[2]["id"]]
    ended(client, pending[2])
    assert listed("limit=200") == newest


def test_pending_edits_are_bounded_and_keep_no_question_waiting(
    server: LiveServer, image: str
) -> None:
    client = server.client
    with server.device_held():
        pending = [ordered(client, image) for _ in range(4)]
        refused = post(client, image)
        assert code(refused) == (429, "queue_full", None)
        assert int(refused.headers["retry-after"]) >= 1
        # A question gets a place in the queue: the edits that wait hold none.
        assert server.waiting == 0
        for edit in pending:
            cancel(client, edit)
    answers: list[httpx.Response] = []

    def is_taken() -> bool:
        answers.append(post(client, image))
        return answers[-1].status_code == 202

    eventually(is_taken)
    ended(client, answers[-1].json())  # or it would have the device when the next test begins


class Slow:
    """An editor's `encode` that takes as many stages as the test wants.

    Leaving it lets the work go on: a test that failed keeps the device from none that follows.
    """

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_error: object) -> None:
        self.go_on.set()

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        encode = EditableModel.encode
        self.began, self.go_on = threading.Event(), threading.Event()
        self.stages = 0

        def slowly(
            model: EditableModel,
            request: EditRequest,
            *,
            editor: str = "liveedit",
            is_cancelled: Callable[[], bool] = lambda: False,
            on_progress: OnProgress = lambda _done, _total, _loss: None,
        ) -> EditArtifact:
            while not is_cancelled() and not self.go_on.wait(0.001):
                self.stages += 1
                with torch.enable_grad():  # as it is between two steps of a gradient
                    on_progress(1, 3, 0.5)
                self.began.set()
            return encode(model, request, editor=editor, is_cancelled=is_cancelled)

        monkeypatch.setattr(EditableModel, "encode", slowly)


def test_between_two_stages_questions_go_first(
    server: LiveServer, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Slow(monkeypatch) as slow:
        questions_go_first(server.client, slow, image, monkeypatch)


def questions_go_first(
    client: httpx.Client, slow: Slow, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = ordered(client, image)
    assert slow.began.wait(120)
    # the worker's word of its progress takes a turn of the event loop to arrive
    fit = {"stage": "fit", "done": 1, "total": 3}
    eventually(lambda: read(client, edit)["progress"] == fit)

    keyed: list[bool] = []
    picture_key = EditableModel.picture_key

    def noted(model: EditableModel, image: ImageArray) -> PictureKey:
        keyed.append(torch.is_grad_enabled())
        return picture_key(model, image)

    monkeypatch.setattr(EditableModel, "picture_key", noted)
    assert answer(client, image, explain=True)["applied"] == []
    assert keyed == [False]  # the editor's gradients are none of theirs
    assert read(client, edit)["status"] == "pending"

    slow.go_on.set()
    assert ended(client, edit)["status"] == "active"


def test_cancelling_stops_the_work_itself(
    server: LiveServer, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.client
    with Slow(monkeypatch) as slow:
        edit = ordered(client, image)
        assert slow.began.wait(120)

        assert cancel(client, edit)["status"] == "cancelled"

        eventually(lambda: server.service.engine.queued == 0)
    assert ended(client, ordered(client, image))["status"] == "active"
    assert read(client, edit)["status"] == "cancelled"


def test_an_edit_that_is_made_in_time_is_no_job(
    start: Start, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(edit_wait_s=600) as server:
        assert post(server.client, image).status_code == 201
        assert code(post(server.client, image, **REFUSED))[:2] == (422, "edit_not_effective")
        assert _jobs(server) == 0
    slow = Slow(monkeypatch)
    with start(edit_wait_s=0.01) as server:
        edit = ordered(server.client, image)
        assert slow.began.wait(120)
        eventually(lambda: read(server.client, edit)["progress"]["stage"] == "fit")
        slow.go_on.set()
        assert ended(server.client, edit)["status"] == "active"


def test_a_batch_waits(start: Start, image: str) -> None:
    with start() as server:
        with server.device_held():
            earlier = ordered(server.client, image, key="both")
            answers: list[httpx.Response] = []

            def send() -> None:
                items = [
                    correction(image, prompt="new"),
                    correction(image, idempotency_key="both"),
                    correction(image, **REFUSED),
                ]
                answers.append(
                    httpx.post(f"{server.url}/edits/batch", json={"edits": items}, timeout=120)
                )

            sender = threading.Thread(target=send)
            sender.start()
            eventually(lambda: server.waiting == 1)
        sender.join()
        new, replayed, refused, end = map(json.loads, answers[0].text.splitlines())
        assert (new["status"], new["edit"]["status"]) == (201, "active")
        assert (replayed["status"], replayed["edit"]["id"]) == (201, earlier["id"])
        assert (replayed["edit"]["version"], replayed["idempotent_replayed"]) == (1, True)
        assert refused["error"]["code"] == "edit_not_effective"
        assert (end["committed"], end["failed"]) == (2, 1)
        assert _jobs(server) == 0


def test_a_locked_database_delays_what_was_promised(
    start: Start, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    def times_refused() -> int:
        return sum("does not answer" in record.getMessage() for record in caplog.records)

    with start(store_timeout_s=0.05) as server:
        with server.device_held():
            edit = ordered(server.client, image)
            file = server.runtime.settings.data_dir / "errata.db"
            other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            other.execute("BEGIN IMMEDIATE")
            assert code(post(server.client, image))[:2] == (503, "store_unavailable")
        eventually(lambda: times_refused() == 2)
        assert read(server.client, edit)["status"] == "pending"
        other.execute("ROLLBACK")
        other.close()
        assert ended(server.client, edit)["status"] == "active"


def test_a_stop_leaves_them_pending_and_a_start_takes_them_up(
    start: Start, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with start() as server:
        committed = ordered(server.client, picture(1), prompt="before")
        slow.go_on.set()
        ended(server.client, committed)
        slow.go_on.clear()
        edits = [ordered(server.client, image, prompt=f"p{i}", key=f"k{i}") for i in range(3)]
        cancel(server.client, edits[1])
    slow.go_on.set()
    with start() as server:
        first, second = ended(server.client, edits[0]), ended(server.client, edits[2])
        assert [first["version"], second["version"]] == [2, 3]
        assert (first["status"], first["created_at"]) == ("active", edits[0]["created_at"])
        assert read(server.client, edits[1])["status"] == "cancelled"
        assert post(server.client, image, prompt="p0", key="k0").json()["id"] == first["id"]
        assert answer(server.client, image)["applied"] != []
        later = ordered(server.client, image)
        assert later["id"] > max(edit["id"] for edit in edits)


def test_what_a_start_cannot_take_up_fails(
    start: Start, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with start() as server:
        edits = [ordered(server.client, image, prompt=f"p{i}") for i in range(4)]
        file = server.runtime.settings.data_dir / "errata.db"
    changes = (
        "png = x'00'",
        "editor = 'retired'",
        "request = json_set(request, '$.verify', 'maybe')",
        "state = state",
    )
    for edit, change in zip(edits, changes, strict=True):
        alter_jobs(file, f"UPDATE edit_jobs SET {change} WHERE id = '{edit['id']}'")
    slow.go_on.set()
    with start() as server:
        damaged, retired, unreadable, good = (ended(server.client, edit) for edit in edits)
        assert (damaged["status"], damaged["error"]["code"]) == ("failed", "internal_error")
        assert "picture" in damaged["error"]["message"]
        assert (retired["status"], retired["error"]["param"]) == ("failed", "editor")
        assert "retired" in retired["error"]["message"]
        assert (unreadable["status"], unreadable["error"]["code"]) == ("failed", "internal_error")
        assert good["status"] == "active"


@pytest.mark.parametrize("edit_wait_s", [0, 0.01, 0.05])
def test_however_the_clock_falls_every_edit_has_one_end(
    start: Start, image: str, edit_wait_s: float
) -> None:
    """Some are made in time, some are promised, some are cancelled just as they are committed."""
    responses: dict[int, httpx.Response] = {}
    with start(edit_wait_s=edit_wait_s) as server:

        def send(number: int) -> None:
            body = correction(image, prompt=f"p{number}")
            made = httpx.post(f"{server.url}/edits", json=body, timeout=120)
            responses[number] = made
            if number % 3 == 0:
                httpx.post(f"{server.url}/edits/{made.json()['id']}/cancel", timeout=120)

        senders = [threading.Thread(target=send, args=(number,)) for number in range(18)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        assert {r.status_code for r in responses.values()} <= {201, 202}
        edits = [ended(server.client, r.json()) for r in responses.values()]
        events = server.client.get("/admin/events?limit=200").json()["data"]

        assert {e["status"] for e in edits if e["version"] is None} <= {"cancelled"}
        made = sorted((e for e in edits if e["version"]), key=lambda e: int(e["version"]))
        assert {e["status"] for e in made} == {"active"}
        assert [e["version"] for e in made] == list(range(1, len(events) + 1))
        assert [e["id"] for e in made] == sorted(e["id"] for e in made)
        eventually(lambda: server.waiting == 0)
        assert _jobs(server) == len(edits) - len(made) == _jobs(server, "cancelled")
