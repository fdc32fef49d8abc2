"""The webhook: signed, in order, at least once, over restarts and failures of its receiver."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import StartupError
from app.settings import Settings
from app.webhook import outbox, sender
from tests.integration.conftest import answer
from tests.support.receiver import Receiver
from tests.support.server import LiveServer, eventually, picture

SECRET = "a secret of the receiver, 24 or more"
Start = Callable[..., LiveServer]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "POLL_S", 0.01)
    monkeypatch.setattr(sender, "FIRST_WAIT_S", 0.005)
    monkeypatch.setattr(sender, "LONGEST_WAIT_S", 0.02)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as opened:
        yield opened


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path, receiver: Receiver) -> Start:
    def begin(**fields: Any) -> LiveServer:
        known: dict[str, Any] = {"webhook_url": receiver.url, "webhook_secret": SECRET}
        known |= {"model": str(tiny_checkpoint), "device": "cpu", "data_dir": tmp_path / "data"}
        return LiveServer(Settings.load(**{"refine_steps": 0} | known | fields))

    return begin


def edit(server: LiveServer, seed: int = 1, **fields: Any) -> dict[str, Any]:
    body = {"image": picture(seed), "prompt": "q", "target": "blue", "verify": "off"} | fields
    made: dict[str, Any] = server.client.post("/edits", json=body).json()
    return made


def state(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/versions").json()["webhook"]
    return found


def attempts(server: LiveServer, outcome: str) -> float:
    return next(
        sample.value
        for family in text_string_to_metric_families(server.client.get("/metrics").text)
        for sample in family.samples
        if sample.name == "errata_webhook_deliveries_total"
        and sample.labels == {"outcome": outcome}
    )


def test_everything_is_told_and_signed(start: Start, receiver: Receiver) -> None:
    with start() as server:
        client = server.client
        made = edit(server)
        client.post(f"/edits/{made['id']}/scope", json={"rephrases": ["other"], "verify": "off"})
        client.post(f"/admin/edits/{made['id']}/rollback", json={"reason": "wrong"})
        client.post(f"/admin/edits/{made['id']}/reinstate")
        client.post("/admin/rollback", json={"to_version": 0})
        answer_id = answer(client, picture(2))["id"]
        client.post("/feedback", json={"answer_id": answer_id, "verdict": "wrong"})
        refused = edit(server, target="sphinx of black quartz, 4,1;7", verify="strict")
        assert refused["error"]["code"] == "edit_not_effective"
        eventually(lambda: len(receiver.taken) == 7)
        events = client.get("/admin/events").json()["data"]
        report = client.get("/feedback").json()["data"][0]
        eventually(lambda: state(server)["behind"] == 0)
        assert state(server)["host"] == "127.0.0.1"
        assert "hidden" not in client.get("/versions").text
        assert attempts(server, "delivered") == 7

    told = {each.message["type"]: each for each in receiver.taken}
    assert [told[event["type"]].message["data"] for event in events] == events
    assert told["feedback_created"].message["data"] == report
    assert told["edit_refused"].message["data"]["error"]["code"] == "edit_not_effective"
    assert told["edit_refused"].message["data"]["actor"] == "local"
    assert [kind for kind in receiver.kinds() if kind in {e["type"] for e in events}] == [
        event["type"] for event in events
    ]
    for each in receiver.taken:
        assert each.is_signed_by(SECRET)
        assert not each.is_signed_by("another secret")
        assert abs(int(each.headers["webhook-timestamp"]) - time.time()) < 300
        assert each.headers["content-type"] == "application/json"
    assert len({each.id for each in receiver.taken}) == 7


def test_a_receiver_that_fails_is_tried_again(start: Start, receiver: Receiver) -> None:
    receiver.statuses = [503, 500, 429, 408]
    with start() as server:
        edit(server, 1)
        edit(server, 2)
        eventually(lambda: len(receiver.taken) == 2)
        eventually(lambda: state(server)["failing"] is None)
        assert attempts(server, "retried") == 4
    ids = [each.id for each in receiver.all]
    assert ids[:5] == [ids[0]] * 5
    assert ids[5] != ids[0]
    assert all(each.is_signed_by(SECRET) for each in receiver.all)


@pytest.mark.parametrize("status", [400, 302])
def test_a_message_that_is_refused_is_given_up(
    start: Start, receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status] * sender.ATTEMPTS
    with start() as server:
        edit(server, 1)
        edit(server, 2)
        eventually(lambda: len(receiver.taken) == 1)
        assert receiver.taken[0].message["data"]["version"] == 2
        eventually(lambda: attempts(server, "given_up") == 1)
    assert len(receiver.all) == sender.ATTEMPTS + 1


def test_what_happened_while_nobody_listened_is_told_after_a_restart(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with Receiver() as first:
        port = first.port
    url = f"http://127.0.0.1:{port}/hook"
    settings = Settings.load(
        model=str(tiny_checkpoint),
        device="cpu",
        data_dir=tmp_path / "data",
        webhook_url=url,
        webhook_secret=SECRET,
    )
    with LiveServer(settings) as server:
        edit(server, 1)
        answer_id = answer(server.client, picture(1))["id"]
        for _ in range(2):
            server.client.post("/feedback", json={"answer_id": answer_id, "verdict": "wrong"})
        eventually(lambda: str(state(server)["failing"]).startswith("not reached"))
        assert state(server)["behind"] >= 2
        assert answer(server.client, picture(1))["applied"] != []  # nobody waits for it
    with Receiver(port=port) as later, LiveServer(settings) as server:
        eventually(lambda: len(later.taken) == 3)
        assert later.kinds() == ["edit_created", "feedback_created", "feedback_created"]
        eventually(lambda: state(server)["behind"] == 0)
    with Receiver(port=port) as again, LiveServer(settings) as server:
        edit(server, 2)
        eventually(lambda: len(again.taken) == 1)
        assert again.taken[0].message["data"]["version"] == 2


def test_another_receiver_is_told_from_now_on(start: Start, receiver: Receiver) -> None:
    with start(webhook_url=None) as server:
        assert state(server) is None
        edit(server, 1)
    with start() as server:
        edit(server, 2)
        eventually(lambda: len(receiver.taken) == 1)
        assert receiver.taken[0].message["data"]["version"] == 2
    with start(webhook_url=f"{receiver.url}&other=1") as server:
        edit(server, 3)
        eventually(lambda: len(receiver.taken) == 2)
        assert receiver.taken[1].message["data"]["version"] == 3


def test_refusals_that_wait_are_bounded(
    start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 2)
    monkeypatch.setattr(sender, "LONGEST_WAIT_S", 7200.0)
    monkeypatch.setattr(sender, "FIRST_WAIT_S", 7200.0)
    receiver.statuses = [500]
    with start() as server:
        edit(server, 1)  # not taken, and all others wait behind it
        eventually(lambda: len(receiver.all) == 1)
        refused, seeds = 0, itertools.count(2)
        while refused < 4:  # with random weights, some of them hold
            made = edit(
                server, next(seeds), target="sphinx of black quartz, 4,1;7", verify="strict"
            )
            refused += "error" in made
        assert attempts(server, "dropped") == 2
        assert state(server)["behind"] == server.version() + 2


def test_no_proxy_of_the_environment_is_used(
    start: Start, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with start() as server:
        edit(server)
        eventually(lambda: len(receiver.taken) == 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"webhook_url": "ftp://example.org"}, "like https://"),
        ({"webhook_url": "https://"}, "like https://"),
        ({"webhook_url": "https://name:word@example.org"}, "without a name"),
        ({"webhook_url": "http://example.org/hook"}, "only be told over https"),
        ({"webhook_url": "https://example.org", "webhook_secret": None}, "WEBHOOK_SECRET"),
        ({"webhook_secret": "short"}, "24 bytes"),
        ({"webhook_secret": "whsec_!!!"}, "base64"),
        ({"webhook_secret": "whsec_c2hvcnQ="}, "24 bytes"),
    ],
)
def test_settings_that_are_not_safe(fields: dict[str, Any], message: str) -> None:
    known = {"webhook_url": "https://example.org/hook", "webhook_secret": SECRET}
    with pytest.raises(StartupError, match=message):
        Settings.load(**known | fields)


def test_settings_that_are() -> None:
    secret = "whsec_" + "YWFh" * 8
    for url in ("https://example.org/a?b=c", "http://[::1]:9/", "http://hook.internal:8080/x"):
        loaded = Settings.load(
            webhook_url=url, webhook_secret=secret, webhook_allowed_hosts=("hook.internal",)
        )
        assert loaded.webhook_key == b"aaa" * 8
        assert secret not in repr(loaded)
