"""What the client repeats and what not, how long it waits, and how it says what it met."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from app.errata import (
    Client,
    ErrataError,
    Misconfigured,
    NoAnswer,
    NotErrata,
    Refused,
    ServerFault,
    TooMany,
    Unavailable,
    errors,
    synchronous,
)
from tests.support.scripted import Reply, error, scripted

EDIT = {
    "id": "01J", "version": 1, "status": "active", "editor": "e", "prompt": "q", "target": "t",
    "image_digest": "sha256:0", "before": None, "after": None, "verified": None,
    "verified_version": None, "damaged": [], "refinement_steps": 0, "rephrases": [], "not_for": [],
    "supersedes": [], "created_at": "", "created_by": "", "note": None, "tags": [],
    "timings_ms": {},
}  # fmt: skip
BUSY = Reply(429, error(429, "queue_full"), {"Retry-After": "7"})
STARTING = Reply(503, error(503, "starting"))
BROKEN = Reply(breaks=True)
REPORTED = Reply(201, {"id": "01K", "status": "open"})
MADE = Reply(201, EDIT)

Act = Callable[[Client], Any]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(synchronous, "time", SimpleNamespace(sleep=slept.append))
    return slept


def edit(client: Client) -> Any:
    return client.edit(b"x", "q", "t")


def report(client: Client) -> Any:
    return client.report("answer")


@pytest.mark.parametrize(
    ("act", "replies"),
    [
        (edit, [BUSY, MADE]),
        (edit, [BROKEN, STARTING, MADE]),
        (edit, [Reply(502, b"<html>"), MADE]),
        (report, [BUSY, REPORTED]),
    ],
)
def test_what_may_be_repeated_is(waits: list[float], act: Act, replies: list[Reply]) -> None:
    with scripted(*replies) as server, Client(server.url) as client:
        act(client)
        assert len(server.requests) == len(replies)
        bodies = {body for _, _, _, body in server.requests}
        keys = {headers.get("Idempotency-Key") for _, _, headers, _ in server.requests}
    assert len(bodies) == len(keys) == 1
    assert len(waits) == len(replies) - 1


@pytest.mark.parametrize(
    ("act", "reply", "raised"),
    [
        (report, BROKEN, NoAnswer),
        (report, Reply(502, b"<html>"), NotErrata),
        (edit, Reply(422, error(422, "edit_conflicts")), errors.EditConflicts),
        (edit, Reply(500, error(500, "internal_error")), ServerFault),
        (edit, Reply(429, error(429, "rate_limited"), {"Retry-After": "7200"}), TooMany),
        (edit, Reply(200, b"<html>"), NotErrata),
        (edit, Reply(200, {"id": 1}), NotErrata),
    ],
)
def test_what_may_not_is_said_at_once(
    waits: list[float], act: Act, reply: Reply, raised: type[ErrataError]
) -> None:
    with scripted(reply) as server, Client(server.url) as client:
        with pytest.raises(raised):
            act(client)
        assert len(server.requests) == 1
    assert waits == []


def test_a_server_is_waited_for_as_long_as_it_asks(waits: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    dated = Reply(503, error(503, "starting"), {"Retry-After": soon})
    unclear = Reply(503, error(503, "starting"), {"Retry-After": "soon"})
    with scripted(BUSY, dated, unclear, STARTING) as server, Client(server.url, retries=4) as c:
        with pytest.raises(Unavailable) as refused:
            c.versions()
        assert len(server.requests) == 5
    assert waits[0] == 7
    assert 25 < waits[1] <= 30
    assert all(0 < wait <= 8 for wait in waits[2:])
    assert refused.value.retry_after is None


def test_nobody_waits_where_retries_are_off(waits: list[float]) -> None:
    with (
        scripted(BUSY) as server,
        Client(server.url, retries=0) as client,
        pytest.raises(TooMany) as refused,
    ):
        client.versions()
    assert refused.value.retry_after == 7
    assert waits == []


def test_a_server_that_is_not_there(waits: list[float]) -> None:
    with Client("127.0.0.1:9", retries=2) as client, pytest.raises(NoAnswer) as nothing:
        client.create_key("x")  # was never sent, so it is safe to send again
    assert not nothing.value.sent
    assert len(waits) == 2


def sse(*events: Any) -> Reply:
    lines = "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)
    return Reply(200, lines.encode(), {"Content-Type": "text/event-stream"})


@pytest.mark.parametrize(
    ("events", "raised"),
    [
        ([{"delta": "a"}], NoAnswer),
        ([{"delta": "a"}, error(503, "draining")], Unavailable),
        ([{"delta": "a"}, error(500, "model_not_finite")], ServerFault),
        ([{"delta": "a"}, "[DONE]"], NotErrata),
        (["{"], NotErrata),
    ],
)
def test_a_stream_that_breaks_says_so(
    waits: list[float], events: list[Any], raised: type[ErrataError]
) -> None:
    with scripted(sse(*events)) as server, Client(server.url) as client:
        with pytest.raises(raised):
            list(client.stream("q"))
        assert len(server.requests) == 1


def test_a_batch_that_breaks_says_so(waits: list[float]) -> None:
    line = json.dumps({"index": 0, "status": 201, "edit": EDIT}).encode() + b"\n"
    from app.errata import Draft

    with scripted(BUSY, Reply(200, line)) as server, Client(server.url) as client:
        outcomes = client.edit_many([Draft(b"x", "q", "t")] * 101)
        assert next(outcomes).edit is not None
        with pytest.raises(NoAnswer, match="same keys"):
            next(outcomes)
        sent = json.loads(server.requests[-1][3])["edits"]
    assert len(sent) == len({each["idempotency_key"] for each in sent}) == 100


@pytest.mark.parametrize("url", ["http://[", "ftp://127.0.0.1", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ErrataError), Client(url) as client:
        client.versions()


def test_a_key_that_no_header_can_hold() -> None:
    with pytest.raises(Misconfigured, match="ERRATA_API_KEY"), Client(api_key="…") as client:
        client.versions()


def test_the_environment_says_where_and_by_which_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Reply(200, {"status": "ready"})) as server:
        monkeypatch.setenv("ERRATA_URL", server.url + "/")
        monkeypatch.setenv("ERRATA_API_KEY", "ek_x")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with Client() as client:
            assert client.health().is_ready
        with Client(api_key="ek_y") as client:
            client.health()
        keys = [headers["Authorization"] for _, _, headers, _ in server.requests]
    assert keys == ["Bearer ek_x", "Bearer ek_y"]


def test_errors_can_be_carried_to_another_process() -> None:
    fields = error(422, "edit_conflicts", conflicts_with=["01J"])["error"]
    carried = pickle.loads(pickle.dumps(errors.refusal(fields, status=422)))  # noqa: S301
    assert isinstance(carried, errors.EditConflicts)
    assert (carried.conflicts_with, carried.hint, carried.status) == (["01J"], "Wait.", 422)
    assert isinstance(carried, Refused)
