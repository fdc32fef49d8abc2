"""From a complaint to an edit: reported, looked at, corrected, closed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app
from app.feedback import desk
from app.settings import Settings
from tests.integration.conftest import Edit, answer
from tests.support.server import LiveServer, picture


def report(client: httpx.Client, answer_id: str, **fields: Any) -> httpx.Response:
    return client.post("/feedback", json={"answer_id": answer_id, "verdict": "wrong"} | fields)


def code(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def newest(client: httpx.Client, status: str = "open") -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/feedback?status={status}&limit=1").json()["data"][0]
    return found


def test_a_wrong_answer_becomes_an_edit(client: httpx.Client, image: str) -> None:
    wrong = answer(client, image)
    made = report(client, wrong["id"], correction="blue", comment="it is blue")
    assert (made.status_code, made.json()["status"]) == (201, "open")

    seen = newest(client)
    assert (seen["id"], seen["verdict"]) == (made.json()["id"], "wrong")
    assert (seen["prompt"], seen["answer"], seen["correction"]) == ("q", wrong["text"], "blue")
    assert (seen["version"], seen["applied"]) == (wrong["version"], [])
    assert client.get(f"/feedback/{seen['id']}").json() == seen
    png = client.get(f"/feedback/{seen['id']}/image")
    assert png.headers["content-type"] == "image/png"
    small = client.get(f"/feedback/{seen['id']}/thumbnail")
    assert (small.headers["content-type"], small.content[8:12]) == ("image/webp", b"WEBP")

    body = {
        "image": base64.b64encode(png.content).decode(),
        "prompt": seen["prompt"],
        "target": seen["correction"],
        "verify": "off",
    }
    edit = client.post("/edits", json=body).json()
    assert edit["image_digest"] == seen["image_digest"]
    assert [each["edit_id"] for each in answer(client, image)["applied"]] == [edit["id"]]

    close = {"by": "edit", "edit_id": edit["id"], "reason": "true"}
    closed = client.post(f"/feedback/{seen['id']}/resolve", json=close)
    assert closed.json()["status"] == "resolved"
    assert closed.json()["edit_id"] == edit["id"]
    assert client.post(f"/feedback/{seen['id']}/resolve", json=close).json() == closed.json()
    other = client.post(f"/feedback/{seen['id']}/resolve", json={"by": "dismissal"})
    assert code(other) == (409, "feedback_closed", "id")
    gone = client.get(f"/feedback/{seen['id']}/image")
    assert code(gone) == (404, "feedback_not_found", "id")
    assert code(client.get("/feedback/none")) == (404, "feedback_not_found", "id")
    assert code(client.get(f"/feedback/{seen['id']}/thumbnail"))[1] == "feedback_not_found"


def test_which_edits_were_in_it(client: httpx.Client, edit: Edit, image: str) -> None:
    made = edit()
    report(client, answer(client, image)["id"], verdict="right")
    assert newest(client)["applied"] == [made["id"]]


def test_a_question_without_a_picture(client: httpx.Client) -> None:
    made = report(client, answer(client, None)["id"]).json()
    assert newest(client)["image_digest"] is None
    assert code(client.get(f"/feedback/{made['id']}/image"))[1] == "feedback_not_found"


def test_a_streamed_answer(client: httpx.Client, image: str) -> None:
    ask = {"prompt": "q", "image": image, "stream": True, "max_new_tokens": 4}
    text = client.post("/generate", json=ask).text
    answer_id = text.split('"id": "')[1][:26]
    assert report(client, answer_id).status_code == 201


def test_pages(client: httpx.Client, image: str) -> None:
    answer_id = answer(client, image)["id"]
    ids = [report(client, answer_id, comment=f"{n}").json()["id"] for n in range(5)]
    first = client.get("/feedback?limit=2").json()
    second = client.get(f"/feedback?limit=3&after={first['last_id']}").json()
    assert [each["id"] for each in first["data"] + second["data"]] == ids[::-1]
    assert first["has_more"]
    for feedback_id in ids:
        client.post(f"/feedback/{feedback_id}/resolve", json={"by": "dismissal"})
    dismissed = client.get("/feedback?status=dismissed&limit=5").json()["data"]
    assert [each["id"] for each in dismissed] == ids[::-1]


def test_bad_input(client: httpx.Client, image: str) -> None:
    known = answer(client, image)["id"]
    assert code(report(client, "gone")) == (404, "answer_not_found", "answer_id")
    assert code(report(client, known, verdict="odd"))[1:] == ("invalid_field", "verdict")
    assert code(report(client, known, correction=""))[1:] == ("invalid_field", "correction")
    assert code(report(client, known, comment="x" * 4001))[1:] == ("invalid_field", "comment")
    assert code(client.get("/feedback?status=odd"))[1:] == ("invalid_field", "status")
    path = f"/feedback/{report(client, known).json()['id']}/resolve"
    assert code(client.post(path, json={"by": "edit"})) == (400, "missing_field", "edit_id")
    lost = {"by": "scope", "edit_id": "none"}
    assert code(client.post(path, json=lost)) == (404, "edit_not_found", "edit_id")
    nowhere = client.post("/feedback/none/resolve", json={"by": "dismissal"})
    assert code(nowhere) == (404, "feedback_not_found", "id")


def test_open_reports_are_bounded(
    client: httpx.Client, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MAX_OPEN", 0)
    assert code(report(client, answer(client, image)["id"]))[:2] == (429, "feedback_full")


@pytest.fixture
def start(tiny_checkpoint: Path, tmp_path: Path) -> Any:
    def begin(**fields: Any) -> LiveServer:
        known = {"model": str(tiny_checkpoint), "device": "cpu", "data_dir": tmp_path / "data"}
        return LiveServer(Settings.load(**known | fields))

    return begin


def test_reports_outlive_the_process_and_answers_do_not(start: Any) -> None:
    with start() as server:
        answer_id = answer(server.client, picture(5))["id"]
        made = report(server.client, answer_id).json()
    with start() as server:
        assert newest(server.client)["id"] == made["id"]
        assert code(report(server.client, answer_id))[1] == "answer_not_found"
        again = report(server.client, answer(server.client, picture(5))["id"]).json()
        assert again["id"] > made["id"]


def test_no_answer_is_kept_where_nobody_wants_it(start: Any) -> None:
    with start(answer_memory_mib=0) as server:
        answer_id = answer(server.client, picture(5))["id"]
        assert code(report(server.client, answer_id))[1] == "answer_not_found"


def test_by_command(
    server: LiveServer, client: httpx.Client, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRATA_URL", server.url)

    def errata(*arguments: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["feedback", *arguments])
        assert result.exit_code == status, result.output
        return result.stdout.strip()

    made = errata("report", answer(client, image)["id"], "--correction", "blue")
    assert made in errata("list")
    errata("resolve", made, status=2)
    assert "dismissed" in errata("dismiss", made, "--reason", "it is right")
    assert made not in errata("list")
    assert made in errata("list", "--status", "dismissed")
