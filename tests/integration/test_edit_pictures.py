"""Pictures of edits over HTTP: whole, small, kept by browsers, and missing."""

from __future__ import annotations

import contextlib
import io
import sqlite3

import httpx
import numpy as np
import pytest
from PIL import Image

from app.images import decode, read_field
from tests.integration.conftest import Edit
from tests.support.server import LiveServer, data_uri, png

LARGE = data_uri(png(np.full((300, 900, 3), (10, 200, 30), dtype=np.uint8)))


def test_the_picture_is_the_edits(client: httpx.Client, edit: Edit, image: str) -> None:
    made = edit()
    response = client.get(f"/edits/{made['id']}/image")
    assert response.headers["content-type"] == "image/png"
    assert "private" in response.headers["cache-control"]
    assert "immutable" in response.headers["cache-control"]
    assert decode(response.content).digest == made["image_digest"]
    assert np.array_equal(decode(response.content).pixels, decode(read_field(image)).pixels)


def test_thumbnails_are_small(client: httpx.Client, edit: Edit) -> None:
    made = edit(image=LARGE)
    for _ in range(2):  # made, then remembered
        response = client.get(f"/edits/{made['id']}/thumbnail")
        assert response.headers["content-type"] == "image/webp"
        with Image.open(io.BytesIO(response.content)) as picture:
            assert picture.size == (192, 64)
            pixel = np.asarray(picture.convert("RGB"))[32, 96].astype(int)
        assert np.abs(pixel - (10, 200, 30)).max() < 8


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
def test_what_a_browser_holds_is_not_sent_again(
    client: httpx.Client, edit: Edit, kind: str
) -> None:
    path = f"/edits/{edit()['id']}/{kind}"
    tag = client.get(path).headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.head(path).status_code == 200


@pytest.mark.parametrize("kind", ["image", "thumbnail"])
def test_pictures_that_are_not_there(client: httpx.Client, edit: Edit, kind: str) -> None:
    missing = client.get(f"/edits/nobody/{kind}")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "edit_not_found")
    strange = client.get(f"/edits/{edit()['id']}/{kind}?size=9")
    assert (strange.status_code, strange.json()["error"]["code"]) == (400, "unknown_field")


def test_an_edit_in_the_making_has_none_yet(
    server: LiveServer, client: httpx.Client, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.service.queue, "_wait_s", 0.0)
    body = {"image": image, "prompt": "q", "target": "blue", "verify": "off"}
    with server.device_held():
        made = client.post("/edits", json=body).json()
        assert made["status"] == "pending"
        refused = client.get(f"/edits/{made['id']}/thumbnail")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "edit_not_committed")
        client.post(f"/edits/{made['id']}/cancel")


def test_a_damaged_picture_is_never_shown(
    server: LiveServer, client: httpx.Client, edit: Edit
) -> None:
    made = edit()
    file = server.runtime.settings.data_dir / "errata.db"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(
            "UPDATE images SET png = ? WHERE digest = ?", (b"no picture", made["image_digest"])
        )
    for kind in ("image", "thumbnail"):
        response = client.get(f"/edits/{made['id']}/{kind}")
        assert response.status_code == 500
        assert "damaged" in response.json()["error"]["message"]
        assert "immutable" not in response.headers.get("cache-control", "")


def test_load_is_told(server: LiveServer, client: httpx.Client) -> None:
    with server.service.engine.ticket():
        busy = client.get("/health/load").json()
    assert busy["waiting"] == 1
    assert busy["limit"] == server.service.engine.overload_status().limit
    assert busy["wait_s"] > 0
    assert busy["not_finite"] == 0
    assert client.get("/health/load?x=1").json()["error"]["code"] == "unknown_field"
