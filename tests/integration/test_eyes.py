"""Eyes that come, go and change: edits stay in force, and their pictures' keys are made again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.runtime import Runtime
from app.settings import Settings
from editing_core.eyes.sketch import SIZE
from editing_core.heraldry.sample import draw_sample
from editing_core.training.eye_views import view_of
from editing_core.types import ImageArray
from tests.support.server import LiveServer, data_uri, png
from tests.support.strange_pictures import repainted, strange_picture, with_a_sign

PROMPT = "What is this?"
VIEWS = ("border", "mirror", "blur")
Start = Callable[[str], LiveServer]


EMBLEM = draw_sample(915_400).picture.image
PICTURES = {"Quarto": strange_picture(3), "Velm": strange_picture(4), "Adrin": EMBLEM}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def begin(eyes: str) -> LiveServer:
        return LiveServer(
            Settings.load(data_dir=tmp_path / "data", device="cpu", threads=1, eyes=eyes)
        )

    return begin


def edit(server: LiveServer, image: ImageArray, target: str) -> None:
    body = {"image": data_uri(png(image)), "prompt": PROMPT, "target": target}
    answer = server.client.post("/edits", json=body)
    assert answer.status_code == 201, answer.text


def answers(server: LiveServer) -> dict[str, str]:
    return {target: answers_to(server, image) for target, image in PICTURES.items()}


def answers_to(server: LiveServer, image: ImageArray) -> str:
    body = {"image": data_uri(png(image)), "prompt": PROMPT}
    text: str = server.client.post("/generate", json=body).json()["text"]
    return text


def asked(server: LiveServer, image: ImageArray) -> tuple[list[str], list[str]]:
    """What applies at a question about `image`, and what became of all that its key found."""
    body = {"image": data_uri(png(image)), "prompt": PROMPT, "explain": True}
    told = server.client.post("/generate", json=body).json()
    applied = [each["edit_id"] for each in told["applied"]]
    return applied, [each["outcome"] for each in told["candidates"]]


def stored(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "data" / "errata.db") as connection:
        query = "SELECT image_digest, made_by, length(sketch) FROM picture_keys"
        return connection.execute(query).fetchall()


def test_eyes_come_and_go_and_every_edit_holds(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = {target: target for target in PICTURES}
    with start("none") as server:
        for target, image in PICTURES.items():
            edit(server, image, target)
        assert answers(server) == right
        assert server.client.get("/versions").json()["eyes"] is None
    assert stored(tmp_path) == []

    caplog.set_level(logging.INFO, "app.store.picture_keys")
    with start("shipped") as server:
        eyes = server.client.get("/versions").json()["eyes"]["fingerprint"]
        assert server.client.get("/versions").json()["stale_edits"] == 0
        assert answers(server) == right
        # The judge knows pictures of edits that were made before there was one.
        assert asked(server, with_a_sign(PICTURES["Quarto"])) == ([], ["another_picture"])
    assert "keys of 3 stored pictures were made again" in caplog.text
    assert {made_by.split()[1] for _, made_by, _ in stored(tmp_path)} == {eyes}
    assert sorted(length for _, _, length in stored(tmp_path)) == [0, SIZE, SIZE]

    caplog.clear()
    with start("shipped") as server:  # what was made is kept
        assert "made again" not in caplog.text
        assert answers(server) == right
        body = {"image": data_uri(png(strange_picture(5))), "prompt": PROMPT, "target": "Oskar"}
        made = server.client.post("/edits", json=body).json()["id"]
        scope = {"rephrases": ["Say what this is."]}
        assert server.client.post(f"/edits/{made}/scope", json=scope).is_success
    with start("none") as server:
        assert answers(server) == right
        assert server.client.get("/versions").json()["stale_edits"] == 0
        at_first = {"image": data_uri(png(strange_picture(5))), "prompt": PROMPT, "at_version": 4}
        assert server.client.post("/generate", json=at_first).json()["text"] == "Oskar"


def test_a_view_fires_and_a_near_picture_is_dropped_and_named(start: Start) -> None:
    own = PICTURES["Quarto"]
    views = {name: view_of(own, np.random.default_rng(2), only=name) for name in VIEWS}
    with start("shipped") as server:
        edit(server, own, "Quarto")
        for name, view in views.items():
            assert asked(server, view)[1] == ["applied"], name
        for near in (with_a_sign(own), repainted(own)):
            applied, outcomes = asked(server, near)
            assert (applied, outcomes) == ([], ["another_picture"])
            body = {"image": data_uri(png(near)), "prompt": PROMPT}
            on, off = (
                server.client.post("/generate", json=body | {"edits": edits}).json()["text"]
                for edits in ("on", "off")
            )
            assert on == off
        # A picture that only looks like an edited one may have an edit of its own.
        edit(server, with_a_sign(own), "Tarn")
        assert answers_to(server, with_a_sign(own)) == "Tarn"
        assert answers_to(server, own) == "Quarto"


def test_a_damaged_sketch_is_made_again(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = PICTURES["Quarto"]
    with start("none") as server:
        edit(server, own, "Quarto")
    with start("shipped"):
        before = stored(tmp_path)
    with sqlite3.connect(tmp_path / "data" / "errata.db") as connection:
        # As if a release that knew no sketches had made the row.
        connection.execute("UPDATE picture_keys SET sketch = NULL")
    with start("shipped") as server:
        assert asked(server, with_a_sign(own)) == ([], ["another_picture"])
        assert answers_to(server, own) == "Quarto"
    assert "is damaged, and made again" in caplog.text
    assert stored(tmp_path) == before


def test_a_start_that_is_cut_short_changes_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start("none") as server:
        edit(server, PICTURES["Velm"], "Velm")

    def cut_short(*_: Any) -> None:
        raise RuntimeError("cut short")

    settings = Settings.load(data_dir=tmp_path / "data", device="cpu", threads=1, eyes="shipped")

    async def begin() -> None:
        runtime = Runtime.open(settings)
        try:
            await runtime.load()
        finally:
            await runtime.close()

    with monkeypatch.context() as patch:
        patch.setattr("app.store.picture_keys.sa.insert", cut_short)  # inside the transaction
        with pytest.raises(RuntimeError, match="cut short"):
            asyncio.run(begin())
    assert stored(tmp_path) == []
    with start("shipped"):
        assert len(stored(tmp_path)) == 1


def test_a_damaged_picture_takes_only_its_own_edit_out(start: Start, tmp_path: Path) -> None:
    with start("none") as server:
        for target, image in PICTURES.items():
            edit(server, image, target)
    with sqlite3.connect(tmp_path / "data" / "errata.db") as connection:
        connection.execute(
            "UPDATE images SET png = x'00' WHERE digest = "
            "(SELECT image_digest FROM edits WHERE target = 'Velm')"
        )
    with start("shipped") as server:
        listed = server.client.get("/edits").json()["data"]
        status = {each["target"]: each["status"] for each in listed}
        assert status == {"Quarto": "active", "Velm": "quarantined", "Adrin": "active"}
        assert answers(server)["Quarto"] == "Quarto"
