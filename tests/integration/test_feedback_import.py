"""Reports from elsewhere: one route, two kinds of file, and records that are wrong."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.commands import feedback_files
from tests.integration.test_feedback import code, newest
from tests.support.server import LiveServer, data_uri, picture, png
from tests.support.tiny_model import tiny_image

_ids = itertools.count(1)
BODY = {"source": "elsewhere", "verdict": "wrong", "prompt": "q", "answer": "red"}


@pytest.fixture
def source_id() -> str:
    return f"id-{next(_ids)}"


@pytest.fixture
def errata(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ERRATA_URL", server.url)

    def run(*arguments: str | Path, status: int = 0) -> Result:
        result = CliRunner().invoke(app, ["feedback", "import", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result

    return run


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def ends(result: Result) -> list[str]:
    return [line["status"] for line in lines(result)]


# --- the route -------------------------------------------------------------------------------


def test_a_report_is_taken_in_once(client: httpx.Client, source_id: str) -> None:
    body = BODY | {"source_id": source_id, "image": picture(901), "correction": "blue"}
    first = client.post("/feedback/import", json=body)
    assert (first.status_code, first.json()["known"]) == (201, False)
    kept = newest(client)
    assert (kept["id"], kept["source"], kept["source_id"]) == (
        first.json()["id"],
        "elsewhere",
        source_id,
    )
    assert (kept["answer_id"], kept["version"], kept["applied"]) == (None, None, [])
    assert (kept["prompt"], kept["answer"], kept["correction"]) == ("q", "red", "blue")
    shown = client.get(f"/feedback/{kept['id']}/image")
    assert shown.headers["content-type"] == "image/png"

    client.post(f"/feedback/{kept['id']}/resolve", json={"by": "dismissal"})
    again = client.post("/feedback/import", json=body | {"answer": "other"})
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
    assert again.json() == {"id": kept["id"], "status": "dismissed", "known": True}


def test_bad_reports_are_refused(client: httpx.Client, source_id: str) -> None:
    def refused(**fields: Any) -> tuple[int, str, str | None]:
        return code(client.post("/feedback/import", json=BODY | {"source_id": source_id} | fields))

    assert refused(image="@") == (400, "image_base64_invalid", "image")
    broken = data_uri(b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert refused(image=broken)[:2] == (422, "image_undecodable")
    assert refused(prompt=" ") == (400, "invalid_field", "prompt")
    assert refused(answer="x" * 20_001) == (400, "invalid_field", "answer")
    assert refused(source_id="") == (400, "invalid_field", "source_id")
    assert refused(version=3) == (400, "unknown_field", "version")
    assert client.post("/feedback/import", json=BODY | {"source_id": source_id}).status_code == 201


# --- CSV -------------------------------------------------------------------------------------


def test_a_csv_is_imported(
    client: httpx.Client, errata: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(tiny_image(902)))
    file = tmp_path / "complaints.csv"
    file.write_text(
        "\ufeffprompt,answer,verdict,image,correction,comment\n"
        '"Which, city?",Oslo,wrong,a.png,Bergen,"two\nlines"\n'
        "Fine?,yes,right,,,\n"
        "q,a,wrong,gone.png,,\n"
        "q,a,odd,,,\n"
        "q,a\n"
        " ,a,,,,\n",
        encoding="utf-8",
    )
    dry = errata(file, "--dry-run", status=1)
    assert ends(dry) == ["to import", "skipped", *["unreadable"] * 4]
    assert [line["record"] for line in lines(dry)][1:3] == [4, 5]
    assert "gone.png" in lines(dry)[2]["message"]
    assert "neither right nor wrong" in lines(dry)[3]["message"]
    assert ends(errata(file, status=1))[:2] == ["imported", "skipped"]
    kept = newest(client)
    assert (kept["prompt"], kept["correction"], kept["comment"]) == (
        "Which, city?",
        "Bergen",
        "two\nlines",
    )
    assert kept["image_digest"] is not None
    again = errata(file, "--right", status=1)
    assert ends(again)[:2] == ["known", "imported"]
    assert "1 known" in again.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "prompt and answer"),
        ("prompt,answer,colour\n", "'colour'"),
        ("prompt\n", "prompt and answer"),
        ('prompt,answer\n"q\n', "line 1: no CSV"),
    ],
)
def test_what_is_no_csv(
    errata: Callable[..., Result], tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text, encoding="utf-8")
    result = errata(file, status=1)
    assert message in result.stderr
    assert result.stdout == ""


# --- Open WebUI ------------------------------------------------------------------------------


def rating(number: int, value: Any = -1, **changes: Any) -> dict[str, Any]:
    """One entry of its export, with a conversation of two turns."""
    messages = {
        "m1": {
            "id": "m1",
            "parentId": None,
            "role": "user",
            "content": "What is it?",
            "files": [{"type": "image", "url": picture(903)}],
        },
        "m2": {"id": "m2", "parentId": "m1", "role": "assistant", "content": "a shield"},
        "m3": {"id": "m3", "parentId": "m2", "role": "user", "content": "Which colour?"},
        "m4": {"id": "m4", "parentId": "m3", "role": "assistant", "content": "red"},
    }
    chat = {"id": "c", "title": "t", "history": {"messages": messages, "currentId": "m4"}}
    return {
        "id": f"fb-{number}",
        "user_id": "u",
        "version": 0,
        "type": "rating",
        "data": {
            "rating": value,
            "model_id": "errata",
            "reason": "not_factually_correct",
            "comment": "it is blue",
        },
        "meta": {"message_id": "m4", "chat_id": "c", "message_index": 4},
        "snapshot": {"chat": {"id": "c", "user_id": "u", "title": "t", "chat": chat}},
        "created_at": 1764000000,
        "updated_at": 1764000000,
    } | changes


def test_an_export_of_open_webui(
    client: httpx.Client, errata: Callable[..., Result], tmp_path: Path
) -> None:
    by_id = rating(2)
    conversation = by_id["snapshot"]["chat"]["chat"]["history"]["messages"]
    conversation["m3"]["files"] = [
        {"type": "file", "content_type": "image/png", "url": "/api/v1/files/f-7/content"}
    ]
    flat = rating(5)
    flat["snapshot"] = {"chat": {"id": "c"}, **flat["snapshot"]["chat"]["chat"]}
    entries = [
        rating(1),
        by_id,
        rating(3, 1),
        rating(4, None),
        flat,
        rating(6, 7),
        rating(7, meta={"message_id": "gone"}),
        rating(8, snapshot={}),
        "nothing",
    ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    uploads = tmp_path / "uploads"
    uploads.mkdir()

    first = errata(file, status=1)
    assert ends(first) == [
        "imported",
        "unreadable",
        "skipped",
        "skipped",
        "imported",
        *["unreadable"] * 4,
    ]
    assert "--pictures" in lines(first)[1]["message"]
    (uploads / "f-7_shield.png").write_bytes(png(tiny_image(904)))
    second = errata(file, "--pictures", uploads, status=1)
    assert ends(second)[:2] == ["known", "imported"]
    kept = newest(client)
    assert (kept["source"], kept["source_id"]) == ("openwebui", "fb-2")
    assert (kept["prompt"], kept["answer"]) == ("Which colour?", "red")
    assert kept["comment"] == "not factually correct: it is blue"
    shown = client.get(f"/feedback/{kept['id']}/image").content
    uploaded = data_uri(shown)
    assert base64.b64decode(uploaded.partition(",")[2])[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "a list"), ("[", "no JSON"), ("[" * 100_000, "export")]
)
def test_what_is_no_export(
    errata: Callable[..., Result], tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "export.json"
    file.write_text(text, encoding="utf-8")
    assert message in errata(file, status=1).stderr


def test_limits_hold_before_anything_is_sent(
    server: LiveServer,
    errata: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "export.json"
    file.write_text(json.dumps([rating(50), rating(51)]), encoding="utf-8")
    monkeypatch.setattr(feedback_files, "MOST_RECORDS", 1)
    assert "more than 1 records" in errata(file, status=1).stderr
    monkeypatch.setattr(feedback_files, "MOST_BYTES", 10)
    assert "MiB" in errata(file, status=1).stderr
    assert "say which" in errata(tmp_path / "export.txt", status=1).stderr
    assert "cannot read" in errata(tmp_path / "gone.csv", status=1).stderr


def test_a_refusal_that_all_would_meet_ends_it(
    errata: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.feedback import desk

    monkeypatch.setattr(desk, "MAX_OPEN", 0)
    file = tmp_path / "complaints.csv"
    file.write_text("prompt,answer\nq,1\nq,2\nq,3\n", encoding="utf-8")
    result = errata(file, status=1)
    assert ends(result) == ["refused"]
    assert "2 not sent" in result.stderr
