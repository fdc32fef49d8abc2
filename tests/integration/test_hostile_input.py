"""Requests that mean no good, over a real socket: each is answered in words, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.errors import Draining
from app.settings import Settings
from app.strict_json import parse
from tests.integration.test_errors_table import check
from tests.support.server import LiveServer, data_uri, eventually, picture, png

PICTURE = picture(1)
ASK = {"prompt": "q", "max_new_tokens": 1}
CORRECTION = {"image": PICTURE, "prompt": "q", "target": "blue", "verify": "off"}
QUICK = {"body_timeout_s": 3.0, "idle_timeout_s": 1.0, "connection_limit": 8}


@pytest.fixture(scope="module")
def strict(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that waits for nobody, with room for one large body and eight connections."""
    folder = tmp_path_factory.mktemp("strict")
    settings = Settings.load(
        model=str(tiny_checkpoint), data_dir=folder, device="cpu", body_memory_mib=16, **QUICK
    )
    with LiveServer(settings) as live:
        yield live


class Raw:
    """A connection on which every byte is ours."""

    def __init__(self, server: LiveServer) -> None:
        port = int(server.url.rpartition(":")[2])
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, length: int, *, path: str = "/generate") -> None:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        self.send(head.encode())

    def read(self) -> bytes:
        """All that comes until the server closes the connection."""
        received = b""
        try:
            while part := self.socket.recv(2**16):
                received += part
        except ConnectionResetError:
            assert received
        return received

    def answer(self) -> httpx.Response:
        """The one response that comes, after which the server closes the connection."""
        head, _, body = self.read().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


# --- what is asked --------------------------------------------------------------------------


def test_a_query_of_thousands_of_names_is_refused(client: httpx.Client) -> None:
    names = "&".join(map(str, range(10_000)))

    check(client.get(f"/edits?{names}"), 400, "invalid_field", None)
    # Before anything reads it: what is no path, or reads no query, refuses it too.
    check(client.get(f"/health/live?{names}"), 400, "invalid_field", None)
    check(client.get(f"/nothing?{names}"), 400, "invalid_field", None)
    assert client.get("/edits?limit=5&tag=a&status=all").status_code == 200


def test_a_body_of_thousands_of_fields_gets_one_error(client: httpx.Client) -> None:
    fields = {f"x{i}": 0 for i in range(40_000)}

    error = check(client.post("/generate", json=ASK | fields), 400, "unknown_field", "x0")
    check(client.post("/generate", json=fields), 400, "missing_field", "prompt")
    check(client.post("/generate", json=fields | {"prompt": 7}), 400, "invalid_field", "prompt")

    assert error["message"] == "There is no field 'x0' here."


def test_a_body_of_a_million_elements_is_refused(client: httpx.Client) -> None:
    body = b'{"prompt": [' + b"[]," * 1_000_000 + b"[]]}"

    check(client.post("/generate", content=body), 400, "invalid_json", None)


def test_what_is_said_of_a_field_is_shorter_than_its_name(client: httpx.Client) -> None:
    response = client.post("/generate", json=ASK | {"x" * 1_000_000: 1})

    assert response.status_code == 400
    assert len(response.content) < 2000
    missing = client.post("/edits", json=CORRECTION | {"supersedes": ["x" * 1_000_000]})
    check(missing, 404, "edit_not_found", "supersedes")
    assert len(missing.content) < 2000


def test_marks_heaped_on_one_letter_are_refused_by_field(client: httpx.Client) -> None:
    heap = "a" + "\u0301\u0316" * 75_000

    check(client.post("/generate", json=ASK | {"prompt": heap}), 400, "invalid_field", "prompt")
    check(client.post("/edits", json=CORRECTION | {"target": heap}), 400, "invalid_field", "target")
    check(client.get("/edits?tag=" + "%CC%81" * 50), 400, "invalid_field", "tag")


def test_a_target_of_megabytes_is_refused_by_its_length(client: httpx.Client) -> None:
    body = CORRECTION | {"target": "\u00e9" * 2_000_000}

    check(client.post("/edits", json=body), 422, "target_too_long", "target")


def test_to_cancel_takes_no_body(client: httpx.Client) -> None:
    check(client.post("/edits/none/cancel", json={"force": True}), 400, "unknown_field", "force")
    check(client.post("/edits/none/cancel", json={}), 404, "edit_not_found", "id")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/edits", "/versions", "/"])
def test_head_is_answered_wherever_get_is(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/edits", "GET, POST, HEAD"),
        ("HEAD", "/generate", "POST"),
        ("POST", "/health/live", "GET, HEAD"),
        ("DELETE", "/edits/x", "GET, HEAD"),
        ("DELETE", "/edits/batch", "POST"),
    ],
)
def test_allow_names_every_method(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)

    assert (response.status_code, response.headers["allow"]) == (405, allowed)


def test_lines_are_not_broken_by_what_some_take_for_their_end(client: httpx.Client) -> None:
    item = CORRECTION | {"target": "x\u2028y\u2029z\u0085", "image": "?"}
    broken = CORRECTION | {"a\u2028b": 1}

    text = client.post("/edits/batch", json={"edits": [item, broken]}).content.decode()

    assert len(text.splitlines()) == 3
    assert "\\u2028" in text


def test_events_tell_how_far_the_log_goes(client: httpx.Client) -> None:
    for target in ("blue", "one"):
        assert client.post("/edits", json=CORRECTION | {"target": target}).status_code == 201

    page = client.get("/admin/events?limit=1").json()

    head = client.get("/versions").json()["version"]
    assert (page["last_version"], page["version"], page["has_more"]) == (1, head, True)


def test_the_schema_says_what_is_checked(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    post = {path: item["post"] for path, item in schema["paths"].items() if "post" in item}

    assert "text/event-stream" in post["/generate"]["responses"]["200"]["content"]
    assert "application/x-ndjson" in post["/edits/batch"]["responses"]["200"]["content"]
    headers = {
        parameter["name"]: parameter["schema"]
        for path in ("/edits", "/admin/rollback")
        for parameter in post[path]["parameters"]
    }
    assert "pattern" in headers["If-Match"]
    assert "pattern" in headers["Idempotency-Key"]
    fields = post["/edits"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert fields["prompt"]["pattern"] == fields["target"]["pattern"] == r"\S"


def test_large_bodies_are_parsed_one_at_a_time(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread that computes is one more before which the event loop waits for its turn."""
    at_work: list[int] = []
    most: list[int] = []

    def counted(body: bytes) -> Any:
        at_work.append(1)
        most.append(len(at_work))
        try:
            return parse(body)
        finally:
            at_work.pop()

    monkeypatch.setattr("app.deps.parse", counted)
    bodies = [{"prompt": "x" * 2**20, "max_new_tokens": n} for n in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(lambda body: client.post("/generate", json=body).status_code, bodies)
        )

    assert statuses == [422] * 8
    assert most == [1] * 8


# --- what does not arrive -------------------------------------------------------------------


def test_a_body_that_does_not_arrive_is_waited_for_no_longer(strict: LiveServer) -> None:
    with Raw(strict) as slow:
        slow.post(1000)
        slow.send(b'{"prompt": ')

        check(slow.answer(), 408, "request_timeout", None)


def test_a_header_that_does_not_arrive_is_waited_for_no_longer(strict: LiveServer) -> None:
    with Raw(strict) as slow:
        slow.send(b"GET /versions HTTP/1.1\r\nHost: local")

        check(slow.answer(), 408, "request_timeout", None)


def test_an_idle_connection_is_closed(strict: LiveServer) -> None:
    with Raw(strict) as idle, Raw(strict) as used:
        used.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")

        assert idle.read() == b""
        assert used.answer().status_code == 200


def test_a_large_body_waits_until_another_gives_up_its_room(
    strict: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.bodies.ROOM_SECONDS", 120.0)
    large = {"prompt": "x" * 2**20}
    with Raw(strict) as holder:
        holder.post(16 * 2**20)  # all the room there is, and nothing comes
        check(strict.client.post("/generate", json=large), 422, "context_too_long", "prompt")
        check(holder.answer(), 408, "request_timeout", None)


def test_small_bodies_find_room_beside_large_ones(server: LiveServer, client: httpx.Client) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(Raw(server)).post(16 * 2**20)
        eventually(
            lambda: client.post("/generate", json={"prompt": "x" * 2**20}).status_code == 429
        )
        full = client.post("/generate", json={"prompt": "x" * 2**20})
        check(full, 429, "queue_full", None)
        assert client.post("/generate", json=ASK | {"image": PICTURE}).status_code == 200
        assert client.get("/health/live").status_code == 200


def test_an_upload_without_end_is_cut(strict: LiveServer) -> None:
    with Raw(strict) as endless:
        endless.send(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sent, piece = 0, b"10000\r\n" + bytes(2**16) + b"\r\n"
        try:
            while sent < 200 * 2**20:
                endless.send(piece)
                sent += 2**16
        except OSError:
            pass
        assert sent < 64 * 2**20


# --- what is no HTTP ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**20,
        b"GET / HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=["two-hosts", "path", "long-header", "no-host", "nonsense", "two-lengths"],
)
def test_what_is_no_http_is_refused_in_our_words(server: LiveServer, request_bytes: bytes) -> None:
    with Raw(server) as raw:
        raw.send(request_bytes)

        check(raw.answer(), 400, "invalid_http", None)


# --- too many -------------------------------------------------------------------------------


def test_beyond_the_limit_the_longest_idle_connection_goes(strict: LiveServer) -> None:
    with ExitStack() as stack:
        crowd = [stack.enter_context(Raw(strict)) for _ in range(20)]

        assert httpx.get(f"{strict.url}/health/live").status_code == 200
        assert crowd[0].read() == b""


def test_when_all_are_busy_a_further_connection_is_refused_in_words(strict: LiveServer) -> None:
    with strict.device_held(), ExitStack() as stack:
        body = json.dumps(ASK).encode()
        for _ in range(8):
            busy = stack.enter_context(Raw(strict))
            busy.post(len(body))
            busy.send(body)
        eventually(lambda: strict.waiting == 8)
        with Raw(strict) as further:
            check(further.answer(), 429, "queue_full", None)
    eventually(lambda: strict.waiting == 0)


# --- the end --------------------------------------------------------------------------------


@contextmanager
def draining(server: LiveServer) -> Iterator[None]:
    assert server.loop is not None
    drained = asyncio.run_coroutine_threadsafe(server.runtime.drain(), server.loop)
    yield
    drained.result(120)


@contextmanager
def cut(server: LiveServer) -> Iterator[None]:
    """The device is held, and what holds it is cut like everything else."""
    with pytest.raises(Draining), server.device_held():
        yield


def test_what_is_cut_at_the_end_of_a_drain_is_told_so(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, drain_timeout_s=0.2)
    answers: dict[str, httpx.Response] = {}
    wanted = {
        "/generate": ASK,
        "/edits": CORRECTION,
        "/edits/batch": {"edits": [CORRECTION | {"prompt": "another"}]},
    }

    def send(server: LiveServer, path: str) -> None:
        answers[path] = httpx.post(f"{server.url}{path}", json=wanted[path], timeout=120)

    with LiveServer(settings) as server, Raw(server) as half:
        half.post(1000)
        half.send(b"{")
        with cut(server):
            senders = [threading.Thread(target=send, args=(server, path)) for path in wanted]
            for sender in senders:
                sender.start()
            eventually(lambda: server.waiting == 3)
            with draining(server):
                pass
            for sender in senders:
                sender.join()
        check(half.answer(), 503, "draining", None)
    check(answers["/generate"], 503, "draining", None)
    check(answers["/edits"], 503, "draining", None)
    line, end = map(json.loads, answers["/edits/batch"].text.splitlines())
    assert (line["status"], line["error"]["code"], end["failed"]) == (503, "draining", 1)


def test_a_stream_that_is_cut_says_why(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(model=str(tiny_checkpoint), data_dir=tmp_path, drain_timeout_s=0.1)
    with LiveServer(settings) as server:
        release, generate = threading.Event(), server.service.engine.generate

        async def stuck(rows: Any, *, on_tokens: Callable[[int, str], None], **more: Any) -> Any:
            def wait(row: int, text: str) -> None:
                on_tokens(row, text)
                release.wait(120)

            return await generate(rows, on_tokens=wait, **more)

        monkeypatch.setattr(server.service.engine, "generate", stuck)
        body = {"prompt": "q", "max_new_tokens": 12, "stream": True, "image": PICTURE}
        with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=120) as response:
            lines = (line for line in response.iter_lines() if line)
            first = next(lines)
            with draining(server):
                last = list(lines)[-1]
        release.set()

    assert first.startswith('data: {"delta"')
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "draining"


# --- neighbours -----------------------------------------------------------------------------


def test_neighbours_with_large_pictures_are_checked_a_few_at_a_time(
    server: LiveServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is found must not depend on how many of their pictures fit into memory."""
    pictures = [np.full((60, 60, 3), 100 + n, dtype=np.uint8) for n in range(5)]
    edit = CORRECTION | {"verify": "report", "prompt": "shade?"}
    for pixels in pictures[:-1]:
        body = edit | {"image": data_uri(png(pixels)), "verify": "off"}
        assert client.post("/edits", json=body).status_code == 201
    last = edit | {"image": data_uri(png(pictures[-1])), "target": "one"}
    held: list[int] = []
    generate = server.service.engine.generate

    async def counted(rows: Any, **more: Any) -> Any:
        distinct = {id(row.image): row.image.size // 3 for row in rows if row.image is not None}
        held.append(sum(distinct.values()))
        return await generate(rows, **more)

    with monkeypatch.context() as patched:
        patched.setattr(server.service.engine, "generate", counted)
        patched.setattr("app.neighbours.SHOWN_PIXELS", 3600)
        patched.setattr("app.neighbours.KEPT_PIXELS", 0)
        tight = client.post("/edits", json=last).json()
    client.post(f"/admin/edits/{tight['id']}/rollback")

    usual = client.post("/edits", json=last).json()

    for name in ("before", "after", "verified", "damaged"):
        assert tight[name] == usual[name]
    assert max(held) <= 2 * 3600  # the edit's own picture, and one more
