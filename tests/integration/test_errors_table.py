"""Every error a client can meet: status, code, param, a hint, and nothing written."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import pytest

from tests.support.server import LiveServer, data_uri, eventually, picture, png
from tests.support.tiny_model import tiny_image

PICTURE = picture(1)
PNG = png(tiny_image(1))
PAPER = "liveedit-paper"
RESTORE_99999 = {"to_version": 99999}
LIMIT = 16 * 2**20

KINDS = {
    400: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    412: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "server_error",
}


def check(response: httpx.Response, status: int, code: str, param: str | None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error["message"]
    assert error["type"] == KINDS[status]
    assert error["message"]
    assert error["hint"]
    assert error["retryable"] == (status in (408, 409, 429, 503))
    assert error["request_id"] == response.headers["x-request-id"]
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error


@pytest.fixture(autouse=True)
def nothing_is_written(server: LiveServer) -> Iterator[None]:
    def rows() -> list[int]:
        file = server.runtime.settings.data_dir / "errata.db"
        with contextlib.closing(sqlite3.connect(file)) as connection:
            tables = ("head", "events", "edits", "artifacts", "images", "idempotency", "edit_jobs")
            return [
                *connection.execute("SELECT version FROM head").fetchone(),
                *(connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables),
            ]

    before = rows()
    yield
    assert rows() == before


@dataclass
class Case:
    """A request and what it is answered with."""

    code: str
    param: str | None = None
    status: int = 400
    method: str = "POST"
    path: str = "/generate"
    json: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.code, self.param, self.note)))


def ask(**fields: Any) -> dict[str, Any]:
    return {"prompt": "q", "max_new_tokens": 1} | fields


def correction(**fields: Any) -> dict[str, Any]:
    return {"image": PICTURE, "prompt": "q", "target": "blue", "verify": "off"} | fields


def explain(**fields: Any) -> dict[str, Any]:
    return {"image": PICTURE, "prompt": "q"} | fields


def png_header(width: int, height: int) -> bytes:
    """The beginning of a picture of any size, without the picture."""
    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + fields))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + fields + checksum


def raw(content: bytes, note: str) -> Case:
    return Case("invalid_json", content=content, note=note)


JSON = [
    raw(b"", "empty"),
    raw(b"{", "cut"),
    raw(b'{"prompt": NaN}', "nan"),
    raw(b'{"prompt": -Infinity}', "infinity"),
    raw(b'{"temperature": 1e999, "prompt": "q"}', "overflow"),
    raw(b'{"seed": ' + b"9" * 5000 + b"}", "long-number"),
    raw(b'{"prompt": "a", "prompt": "b"}', "repeated"),
    raw(b'{"prompt": "\\ud800"}', "lone-surrogate"),
    raw(b'{"\\udc00": 1}', "lone-surrogate-key"),
    raw(b"\xef\xbb\xbf{}", "byte-order-mark"),
    raw('{"prompt": "q"}'.encode("utf-16"), "utf-16"),
    raw(b'{"prompt": "\xff"}', "latin-1"),
    raw(b'{"prompt": ' + b"[" * 65 + b"]" * 65 + b"}", "depth-66"),
    raw(b"[" * 100_000, "depth-100000"),
    raw(b'{"prompt": "a\nb"}', "control-character"),
]
FIELDS = [
    Case("missing_field", "prompt", json={}),
    Case("missing_field", "image", path="/edits", json={"prompt": "q", "target": "t"}),
    Case("missing_field", "target", path="/edits", json={"prompt": "q", "image": PICTURE}),
    Case("missing_field", "to_version", path="/admin/rollback", json={}),
    Case("invalid_field", json=[1], note="list"),
    Case("invalid_field", json="text", note="text"),
    Case("invalid_field", "prompt", json=ask(prompt="")),
    Case("invalid_field", "prompt", json=ask(prompt=" \n\u3000"), note="blank"),
    Case("invalid_field", "prompt", json=ask(prompt=7), note="type"),
    Case("invalid_field", "prompt", path="/edits", json=correction(prompt="")),
    Case("missing_field", "image", path="/attributions", json={"prompt": "q"}),
    Case("invalid_field", "image", path="/attributions", json=explain(image=None)),
    Case("invalid_field", "prompt", path="/attributions", json=explain(prompt=" ")),
    Case("invalid_field", "token", path="/attributions", json=explain(token=-1)),
    Case("unknown_field", "stream", path="/attributions", json=explain(stream=True)),
    Case("invalid_field", "target", path="/edits", json=correction(target="")),
    Case("invalid_field", "target", path="/edits", json=correction(target=" \t "), note="blank"),
    Case("invalid_field", "image", path="/edits", json=correction(image=None)),
    Case("invalid_field", "image", json=ask(image=5)),
    Case("invalid_field", "verify", path="/edits", json=correction(verify="maybe")),
    Case("invalid_field", "editor", path="/edits", json=correction(editor="unheard-of")),
    Case("invalid_field", "editor", path="/edits", json=correction(editor=""), note="empty"),
    Case("invalid_field", "rephrases", path="/edits", json=correction(rephrases=["a", " "])),
    Case("invalid_field", "max_new_tokens", json=ask(max_new_tokens=0)),
    Case("invalid_field", "max_new_tokens", json=ask(max_new_tokens=1025), note="more"),
    Case("invalid_field", "max_new_tokens", json=ask(max_new_tokens=True), note="bool"),
    Case("invalid_field", "max_new_tokens", json=ask(max_new_tokens="5"), note="text"),
    Case("invalid_field", "temperature", json=ask(temperature=-0.1)),
    Case("invalid_field", "top_p", json=ask(top_p=1.1)),
    Case("invalid_field", "seed", json=ask(seed=2**63)),
    Case("invalid_field", "stop", json=ask(stop=["a", "b", "c", "d", "e"])),
    Case("invalid_field", "stop", json=ask(stop=3), note="type"),
    Case("invalid_field", "stop", json=ask(stop=[""]), note="empty"),
    Case("invalid_field", "edits", json=ask(edits="maybe")),
    Case("invalid_field", "stream", json=ask(stream="yes")),
    Case("invalid_field", "at_version", json=ask(at_version=-1)),
    Case("invalid_field", "limit", method="GET", path="/edits?limit=0"),
    Case("invalid_field", "limit", method="GET", path="/edits?limit=201", note="more"),
    Case("invalid_field", "limit", method="GET", path="/edits?limit=1&limit=2", note="twice"),
    Case("invalid_field", "status", method="GET", path="/edits?status=gone"),
    Case("invalid_field", "after", method="GET", path="/admin/events?after=x"),
    Case("invalid_field", "force", path="/admin/edits/x/reinstate", json={"force": 1}),
    Case(
        "invalid_field", "Idempotency-Key", path="/edits", json=correction(),
        headers={"Idempotency-Key": "k" * 256},
    ),
    Case(
        "invalid_field", "If-Match", path="/admin/rollback", json={"to_version": 0},
        headers={"If-Match": "soon"},
    ),
    Case("unknown_field", "promt", json=ask(promt="q")),
    Case("unknown_field", "lang", path="/edits", json=correction(lang="en")),
    Case("unknown_field", "page", method="GET", path="/edits?page=2"),
    Case("unknown_field", "verbose", path="/generate?verbose=1", json=ask()),
    Case("unsupported_parameter", "editor", path="/edits", json=correction(editor=PAPER)),
]  # fmt: skip
IMAGES = [
    Case("image_base64_invalid", "image", json=ask(image="not base64!")),
    Case("image_base64_invalid", "image", json=ask(image=""), note="empty"),
    Case("image_base64_invalid", "image", json=ask(image="data:image/png,abc"), note="plain-uri"),
    Case("image_base64_invalid", "image", json=ask(image="data:image/png;base64"), note="cut-uri"),
    Case(
        "image_base64_invalid", "image", note="url-alphabet",
        json=ask(image=base64.urlsafe_b64encode(b"\xff\xef" * 9).decode()),
    ),
    Case("image_base64_invalid", "image", json=ask(image="aGVs\nbG8="), note="line-break"),
    Case("remote_images_disabled", "image", json=ask(image="https://example.org/a.png")),
    Case("remote_images_disabled", "image", json=ask(image="file:///etc/passwd"), note="file"),
    Case("image_too_large", "image", 413, json=ask(image=data_uri(bytes(10 * 2**20 + 1)))),
    Case("image_too_many_pixels", "image", 413, json=ask(image=data_uri(png_header(5001, 5000)))),
    Case("image_format_unsupported", "image", 415, json=ask(image=data_uri(b"hello, world"))),
    Case(
        "image_format_unsupported", "image", 415, note="bmp",
        json=ask(image=data_uri(png(tiny_image(1), kind="BMP"))),
    ),
    Case("image_undecodable", "image", 422, json=ask(image=data_uri(PNG[: len(PNG) // 2]))),
    Case("image_undecodable", "image", 422, json=ask(image=data_uri(PNG[:10])), note="header"),
    Case("image_base64_invalid", "image", path="/attributions", json=explain(image="not base64!")),
    Case(
        "image_too_many_pixels", "image", 413, path="/attributions",
        json=explain(image=data_uri(png_header(5001, 5000))),
    ),
    Case(
        "image_undecodable", "image", 422, path="/attributions",
        json=explain(image=data_uri(PNG[:60])),
    ),
    Case(
        "image_undecodable", "image", 422, path="/edits",
        json=correction(image=data_uri(PNG[:60])),
    ),
]  # fmt: skip
PATHS = [
    Case("route_not_found", None, 404, method="GET", path="/nowhere"),
    Case("route_not_found", None, 404, method="GET", path="/edits/", note="slash"),
    Case("edit_not_found", "id", 404, method="GET", path="/edits/01J00000000000000000000000"),
    Case("edit_not_found", "id", 404, path="/admin/edits/nobody/rollback"),
    Case("edit_not_found", "id", 404, path="/admin/edits/nobody/reinstate", note="reinstate"),
    Case("edit_not_found", "supersedes", 404, path="/edits", json=correction(supersedes=["x"])),
    Case("edit_not_found", "after", 404, method="GET", path="/edits?after=nobody"),
    Case("version_not_found", "at_version", 404, json=ask(at_version=99999)),
    Case("version_not_found", "to_version", 404, path="/admin/rollback", json=RESTORE_99999),
    Case("method_not_allowed", None, 405, method="PUT", path="/edits"),
    Case("method_not_allowed", None, 405, method="GET", path="/generate", note="get"),
    Case(
        "version_mismatch", "If-Match", 412, path="/admin/rollback", json={"to_version": 0},
        headers={"If-Match": '"99999"'},
    ),
    Case(
        "content_type_unsupported", "Content-Type", 415, content=b"prompt=q",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    Case(
        "content_type_unsupported", "Content-Encoding", 415, content=b"{}",
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    ),
    Case("host_not_allowed", "Host", 403, json=ask(), headers={"Host": "rebound.example"}),
    Case("host_not_allowed", "Origin", 403, json=ask(), headers={"Origin": "https://evil.example"}),
    Case("version_not_reached", "min_version", 503, json=ask(min_version=99999)),
]  # fmt: skip
MEANING = [
    Case("context_too_long", "prompt", 422, json=ask(prompt="why " * 500)),
    Case("context_too_long", "prompt", 422, json=ask(prompt="x" * 2_000_000), note="huge"),
    Case(
        "context_too_long", "prompt", 422, note="stream",
        json=ask(prompt="why " * 500, stream=True),
    ),
    Case("context_too_long", "prompt", 422, path="/edits", json=correction(prompt="why " * 500)),
    Case(
        "context_too_long", "prompt", 422, path="/attributions",
        json=explain(prompt="why " * 500),
    ),
    Case("answer_too_short", "token", 422, path="/attributions", json=explain(token=80)),
    Case("target_too_long", "target", 422, path="/edits", json=correction(target="why " * 60)),
    # More letters than two dozen steps of refinement can teach a random model.
    Case(
        "edit_not_effective", None, 422, path="/edits",
        json=correction(verify="strict", target="sphinx of black quartz, judge my vow! 4,1;7"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", [*JSON, *FIELDS, *IMAGES, *PATHS, *MEANING], ids=str)
def test_a_bad_request_is_refused_in_words(client: httpx.Client, case: Case) -> None:
    body: dict[str, Any] = {"content": case.content} if case.content is not None else {}
    if case.json is not None:
        body["json"] = case.json

    response = client.request(case.method, case.path, headers=case.headers, **body)

    error = check(response, case.status, case.code, case.param)
    if case.code == "edit_not_effective":
        assert case.json is not None
        assert error["after"] != case.json["target"]
        assert isinstance(error["before"], str)
    if case.code == "method_not_allowed":
        assert response.headers["allow"]


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "unannounced"])
def test_a_body_beyond_the_limit_is_not_read_to_its_end(
    client: httpx.Client, chunked: bool
) -> None:
    body = json.dumps(ask(prompt="x" * (LIMIT + 1))).encode()
    pieces = (body[at : at + 2**16] for at in range(0, len(body), 2**16))

    response = client.post("/generate", content=pieces if chunked else body)

    check(response, 413, "body_too_large", None)


def test_a_body_at_the_limit_is_read(client: httpx.Client) -> None:
    frame = len(json.dumps({"prompt": ""}))
    body = json.dumps({"prompt": "x" * (LIMIT - frame)}).encode()
    assert len(body) == LIMIT

    check(client.post("/generate", content=body), 422, "context_too_long", "prompt")


def test_a_full_queue_says_when_to_come_back(server: LiveServer, client: httpx.Client) -> None:
    engine = server.service.engine
    tickets = [engine.ticket() for _ in range(engine.overload_status().limit)]
    for ticket in tickets:
        ticket.__enter__()
    try:
        check(client.post("/generate", json=ask()), 429, "queue_full", None)
        check(client.post("/edits", json=correction()), 429, "queue_full", None)
        check(client.post("/attributions", json=explain()), 429, "queue_full", None)
    finally:
        for ticket in tickets:
            ticket.__exit__(None, None, None)
    assert client.post("/generate", json=ask()).status_code == 200


def test_a_locked_database_refuses_writes_and_only_writes(
    server: LiveServer, client: httpx.Client
) -> None:
    file = server.runtime.settings.data_dir / "errata.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        check(client.post("/edits", json=correction()), 503, "store_unavailable", None)
        assert client.post("/generate", json=ask()).status_code == 200
        assert client.get("/edits").status_code == 200
        other.execute("ROLLBACK")


def test_an_internal_error_tells_nothing_of_itself(
    server: LiveServer, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(server.service.history.log, "record", fail)
    known = server.service.history.ledger.ids()
    monkeypatch.setattr(server.service.history, "settled", fail)
    response = client.get(f"/edits/{known[0] if known else 'any'}")

    assert response.status_code == 500
    assert "swordfish" not in response.text
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert error["hint"]


@pytest.mark.parametrize("given", ["abc-123", "~" * 128])
def test_a_request_id_is_echoed(client: httpx.Client, given: str) -> None:
    for path in ("/health/live", "/nowhere"):
        assert client.get(path, headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "caf\u00e9".encode("latin-1")])
def test_a_request_id_is_made(client: httpx.Client, given: str | bytes | None) -> None:
    headers: Any = {} if given is None else {"X-Request-Id": given}
    made = client.get("/health/live", headers=headers).headers["x-request-id"]

    assert len(made) == 26
    assert made != given


def test_pictures_under_a_wrong_name_are_taken_for_what_they_are(client: httpx.Client) -> None:
    jpeg = png(tiny_image(1), kind="JPEG")
    uri = f"data:image/png;base64,{base64.b64encode(jpeg).decode()}"

    assert client.post("/generate", json=ask(image=uri)).status_code == 200
    assert client.post("/generate", json=ask(image=uri.partition(",")[2])).status_code == 200


def test_one_line_of_pixels_is_a_picture(client: httpx.Client) -> None:
    line = np.full((1, 100_000, 3), 7, dtype=np.uint8)

    assert client.post("/generate", json=ask(image=data_uri(png(line)))).status_code == 200


def test_the_device_is_free_again_after_all_that(server: LiveServer) -> None:
    eventually(lambda: server.waiting == 0)
