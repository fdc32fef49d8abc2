"""Histories of verified edits on a live server, against the rule that decides who is active.

Pictures, prompts and targets are few, so that slots, look-alikes and contradictions are common.
Now and then the server waits for no edit: what is answered 202 then comes to the same end, and a
stop in between changes nothing but when.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from tests.property.test_ledger import Simple, status
from tests.support.other_weights import trained_further
from tests.support.server import LiveServer, data_uri, eventually, png
from tests.support.tiny_model import save_tiny_checkpoint, tiny_image

NEARLY = tiny_image(0)
NEARLY[0, 0, 0] ^= 1
PICTURES = [data_uri(png(image)) for image in (tiny_image(0), NEARLY, tiny_image(5))]
CODES = {"edit_not_effective", "edit_conflicts"}

_edits = st.fixed_dictionaries(
    {
        "image": st.sampled_from(PICTURES),
        "prompt": st.sampled_from(["one", "two"]),
        "target": st.sampled_from(["is", "the", "b"]),
        "verify": st.sampled_from(["strict", "strict", "report", "off"]),
    }
)
_some = st.lists(st.integers(0, 50), max_size=1)


@pytest.fixture(scope="module", autouse=True)
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An edit of this one acts at its own prompt and little else, and so some edits hold."""
    first = save_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), rho=0.0)
    other = trained_further(first, tmp_path_factory.mktemp("other") / "weights", "liveedit")
    HistoryMachine.folders = (first, other)


class HistoryMachine(RuleBasedStateMachine):
    """`model` lists the edits in the order of commits; `answers` what a strict one established."""

    folders: tuple[Path, Path]

    def __init__(self) -> None:
        super().__init__()
        self._data = tempfile.TemporaryDirectory()
        self._folder = self.folders[0]
        self.stale: set[str] = set()
        self.wait_s = 0
        self._server = self._start()
        self.model: list[Simple] = []
        self.never_made: dict[str, str] = {}
        self.version = 0

    def _start(self) -> LiveServer:
        data_dir, model = Path(self._data.name), str(self._folder)
        return LiveServer(
            Settings.load(model=model, data_dir=data_dir, refine_steps=8, edit_wait_s=self.wait_s)
        ).__enter__()

    def teardown(self) -> None:
        self._server.__exit__()
        self._data.cleanup()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._server.client.post(path, json=body)
        if response.status_code == 202:
            return self._ended(response.json()["id"])
        return response.status_code, response.json()

    def _ended(self, edit_id: str) -> Any:
        """What would have been answered, had the edit been waited for."""

        def edit() -> Any:
            return self._server.client.get(f"/edits/{edit_id}").json()

        eventually(lambda: edit()["status"] != "pending")
        ended = edit()
        if ended["status"] == "failed":
            self.never_made[edit_id] = "failed"
            return 422, {"error": ended["error"]}
        return 201, ended

    def _statuses(self) -> dict[str, str]:
        found = {edit.id: status(self.model, at) for at, edit in enumerate(self.model)}
        stale = {i: "stale" for i in self.stale if found[i] != "rolled_back"}
        return found | stale

    def _named(self, which: list[int]) -> list[str]:
        return [self.model[n % len(self.model)].id for n in which if self.model]

    def _refused(self, error: dict[str, Any], before: dict[str, str]) -> None:
        """A refusal names edits that are active, and changes nothing."""
        assert error["code"] in CODES
        if error["code"] == "edit_conflicts":
            assert error["conflicts_with"]
            assert {before[i] for i in error["conflicts_with"]} == {"active"}

    def _committed(self, edit: dict[str, Any], body: dict[str, Any]) -> None:
        self.version += 1
        assert edit["version"] == self.version
        if body["verify"] == "strict":
            assert (edit["verified"], edit["after"], edit["damaged"]) == (True, body["target"], [])
            ask = {"image": body["image"], "prompt": body["prompt"]}
            assert self._post("/generate", ask)[1]["text"] == body["target"]
        slot = (edit["image_digest"], edit["prompt"])
        self.model.append(Simple(edit["id"], slot, tuple(edit["supersedes"])))

    @rule(body=_edits, names=_some)
    def create(self, body: dict[str, Any], names: list[int]) -> None:
        before = self._statuses()
        supersedes = self._named(names)
        code, made = self._post("/edits", body | {"supersedes": supersedes})
        self._came_out(code, made, body | {"supersedes": supersedes}, before)

    def _came_out(
        self, code: int, made: dict[str, Any], body: dict[str, Any], before: dict[str, str]
    ) -> None:
        if code == 201:
            self._committed(made, body)
        else:
            assert body["verify"] == "strict"
            self._refused(made["error"], before)
            assert not {*made["error"].get("conflicts_with", ())} & {*body["supersedes"]}

    @rule(bodies=st.lists(_edits, min_size=1, max_size=3))
    def create_many(self, bodies: list[dict[str, Any]]) -> None:
        response = self._server.client.post("/edits/batch", json={"edits": bodies})
        *lines, end = map(json.loads, response.text.splitlines())
        for body, line in zip(bodies, lines, strict=True):
            if line["status"] == 201:
                # Asked after the whole batch, when others may have been made in its slot.
                self._committed(line["edit"], body | {"verify": "then"})
            else:
                self._refused(line["error"], self._statuses())
        assert (end["version"], end["committed"] + end["failed"]) == (self.version, len(bodies))

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50))
    def roll_back(self, which: int) -> None:
        edit = self.model[which % len(self.model)]
        code, body = self._post(f"/admin/edits/{edit.id}/rollback", {})
        assert (code, body["changed"]) == (200, not edit.rolled_back)
        self.version += not edit.rolled_back
        edit.rolled_back = True

    @precondition(lambda self: self.model)
    @rule(which=st.integers(0, 50), force=st.booleans())
    def reinstate(self, which: int, force: bool) -> None:
        edit, before = self.model[which % len(self.model)], self._statuses()
        code, body = self._post(f"/admin/edits/{edit.id}/reinstate", {"force": force})
        if code == 409:
            assert body["error"]["code"] == "edit_stale"
            assert edit.id in self.stale
            assert edit.rolled_back
            assert not force
            return
        if code == 422:
            assert not force
            assert edit.rolled_back
            self._refused(body["error"], before)
            assert edit.id not in body["error"]["conflicts_with"]
            return
        assert (code, body["changed"]) == (200, edit.rolled_back)
        self.version += edit.rolled_back
        edit.rolled_back = False

    @precondition(lambda self: self.wait_s == 0)
    @rule(body=_edits, is_cancelled=st.booleans())
    def stop_before_it_is_made(self, body: dict[str, Any], is_cancelled: bool) -> None:
        before, client = self._statuses(), self._server.client
        with self._server.device_held():
            made = client.post("/edits", json=body).json()
            if is_cancelled:
                client.post(f"/edits/{made['id']}/cancel")
            self._server.drain()
        self.restart(self.wait_s)
        if is_cancelled:
            self.never_made[made["id"]] = "cancelled"
        else:
            code, ended = self._ended(made["id"])
            self._came_out(code, ended, body | {"supersedes": []}, before)

    @rule(wait_s=st.sampled_from([0, 600]))
    def restart(self, wait_s: int) -> None:
        self.wait_s = wait_s
        self._server.__exit__()
        self._server = self._start()

    @precondition(lambda self: self.model)
    @rule(how_many=st.integers(0, 3))
    def change_weights(self, how_many: int) -> None:
        """To the other ones and back; edits made by those now loaded count as they are."""
        self._server.__exit__()
        self._folder = self.folders[self._folder == self.folders[0]]
        self.stale = {edit.id for edit in self.model if edit.id not in self.stale}
        some = sorted(self.stale)[:how_many]
        if some:
            named = [part for edit_id in some for part in ("--edit", edit_id)]
            where = ["--model", str(self._folder), "--data-dir", self._data.name]
            done = CliRunner().invoke(app, ["reencode", *where, "--verify", "off", *named])
            assert done.exit_code == 0, done.output
            self.version += len(some)
            self.stale -= {*some}
        self._server = self._start()

    @invariant()
    def the_server_says_what_the_rule_says(self) -> None:
        listed = self._server.client.get("/edits?limit=200").json()["data"]
        expected = self._statuses() | self.never_made
        assert {edit["id"]: edit["status"] for edit in listed} == expected
        assert [edit["id"] for edit in listed] == sorted(expected, reverse=True)
        assert self._server.version() == self.version


TestHistory = HistoryMachine.TestCase
# Each step asks a server many questions; a failing history is short enough to read as it is.
TestHistory.settings = settings(
    max_examples=2, stateful_step_count=8, deadline=None, phases=[Phase.generate]
)
