"""Writes `errata.db` and `exchanges.json`: what a release left behind, and what it answered.

Run with the program of that release, from the root of its checkout, and never with a later one:

    python -m tests.support.released.make

The release of these files has schema 0003, and answers kept as whole bodies.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from app.settings import Settings
from editing_core.heraldry.sample import draw_sample
from tests.support.server import LiveServer, data_uri, eventually, png

FOLDER = Path(__file__).parent
SIZE = 112

OTHER_QUESTION = "Is it raining in the valley of the moon tonight?"
"""Nothing that the router takes for a rephrase: an edit that names it is refused."""


class Recorder:
    """Sends requests and keeps them; a picture is named, so that it is written once."""

    def __init__(self) -> None:
        self.pictures: dict[str, str] = {}
        self.requests: dict[str, dict[str, Any]] = {}

    def about(self, seed: int, question: int, **fields: Any) -> dict[str, Any]:
        """A correction of that question, to its first wrong answer."""
        sample = draw_sample(seed)
        self.pictures[str(seed)] = data_uri(png(_small(sample.picture.image)))
        asked = sample.questions[question]
        body = {"prompt": asked.wordings[0], "target": asked.alternatives[0]}
        return {"image": str(seed), **body, **fields}

    def post(self, client: httpx.Client, key: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests[key] = body
        response = self._send(client, key)
        assert response.status_code in (201, 202), response.text
        made: dict[str, Any] = response.json()
        return made

    def replays(self, client: httpx.Client, keys: list[str]) -> dict[str, dict[str, Any]]:
        """What each key is answered with now."""
        return {key: _kept(self._send(client, key)) for key in keys}

    def _send(self, client: httpx.Client, key: str) -> httpx.Response:
        body = self.requests[key]
        sent = body | {"image": self.pictures[body["image"]]}
        return client.post("/edits", json=sent, headers={"Idempotency-Key": key})


def _small(image: Any) -> Any:
    """Few colours and few pixels: a small file."""
    reduced = Image.fromarray(image).resize((SIZE, SIZE)).quantize(24, dither=Image.Dither.NONE)
    return np.asarray(reduced.convert("RGB"))


def _kept(response: httpx.Response) -> dict[str, Any]:
    names = ("idempotent-replayed", "location")
    headers = {name: response.headers[name] for name in names if name in response.headers}
    return {"status": response.status_code, "headers": headers, "body": response.text}


def _ended(client: httpx.Client, edit: dict[str, Any], status: str) -> None:
    eventually(lambda: client.get(f"/edits/{edit['id']}").json()["status"] != "pending")
    found = client.get(f"/edits/{edit['id']}").json()
    assert found["status"] == status, found


def main() -> None:
    """Make both files. A few edits in time, then a few that are answered 202."""
    recorder = Recorder()
    about = recorder.about
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"

        def start(**fields: Any) -> LiveServer:
            settings = Settings.load(
                data_dir=data, model="heraldry", device="cpu", threads=1, refine_steps=8, **fields
            )
            return LiveServer(settings)

        with start(edit_wait_s=600) as server:
            client = server.client
            older = about(500, 0, note="Заметка, 注释", tags=["a", "b"], verify="report")
            recorder.post(client, "superseded", older | {"rephrases": ["What may it be, then?"]})
            recorder.post(client, "active", about(500, 0, target="Ünïted", verify="report"))
            undone = recorder.post(client, "rolled back", about(500, 1, verify="off"))
            client.post(f"/admin/edits/{undone['id']}/rollback", json={"reason": "a mistake"})
            recorder.post(client, "undone by a restore", about(501, 0, verify="off"))
            client.post("/admin/rollback", json={"to_version": 4})
            recorder.post(client, "strict", about(501, 1))
        with start(edit_wait_s=0) as server:
            client = server.client
            _ended(client, recorder.post(client, "promised", about(501, 2)), "active")
            undone = recorder.post(client, "promised, rolled back", about(500, 2, verify="off"))
            _ended(client, undone, "active")
            client.post(f"/admin/edits/{undone['id']}/rollback", json={})
            failed = about(500, 3, rephrases=[OTHER_QUESTION], tags=["hopeless"])
            _ended(client, recorder.post(client, "failed", failed), "failed")
            said = about(501, 1)
            ask = {"image": recorder.pictures[said["image"]], "prompt": said["prompt"]}
            answer = client.post("/generate", json=ask).json()
            assert answer["text"] == said["target"], answer
            with server.device_held():
                gone = recorder.post(client, "cancelled", about(500, 3, note="never mind"))
                client.post(f"/edits/{gone['id']}/cancel")
                keys = list(recorder.requests)
                waiting = about(501, 3, rephrases=["And this?"], tags=["late"], verify="off")
                pending = recorder.post(client, "pending", waiting)
                exchanges = {
                    "pictures": recorder.pictures,
                    "requests": recorder.requests,
                    "replays": recorder.replays(client, keys),
                    "pending": pending,
                    "edits": client.get("/edits?limit=200").json()["data"],
                    "events": client.get("/admin/events?limit=200").json()["data"],
                    "ask": said,
                }
                server.drain()
        (FOLDER / "errata.db").unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(data / "errata.db")) as connection:
            connection.execute("VACUUM INTO ?", (str(FOLDER / "errata.db"),))
    text = json.dumps(exchanges, ensure_ascii=False, indent=1)
    (FOLDER / "exchanges.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
