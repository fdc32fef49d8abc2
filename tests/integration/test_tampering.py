"""A database altered behind the server's back: every alteration is found, and harms only itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.device.facts import ModelFacts
from app.edits.catalogue import Catalogue, Search
from app.errors import ServiceError, StartupError, StoreDamaged
from app.history import History
from app.recovery import recover
from app.schemas.edits import EditView
from app.settings import Settings
from app.store.database import Database
from app.store.edit_log import EditLog
from app.store.job_log import JobLog
from app.store.records import IdempotencyKey, digest_of
from editing_core.editable_model import EditableModel
from tests.support.server import LiveServer, eventually, picture, png
from tests.support.store import alter
from tests.support.tampering import Alteration, alter_at_random
from tests.support.tiny_model import save_tiny_checkpoint, tiny_image

BODY = {"image": picture(1), "prompt": "q", "target": "blue", "verify": "off"}


@dataclass(frozen=True)
class Data:
    """A data directory, and what lies in it: ids by name."""

    folder: Path
    model: Path
    ids: dict[str, str]

    @property
    def file(self) -> Path:
        return self.folder / "errata.db"

    def copied(self, folder: Path) -> Data:
        return Data(shutil.copytree(self.folder, folder / "data"), self.model, self.ids)

    def start(self, **more: Any) -> LiveServer:
        settings = Settings.load(
            model=str(self.model), data_dir=self.folder, device="cpu", refine_steps=1, **more
        )
        return LiveServer(settings)

    def doctor(self) -> tuple[int, str]:
        """Exit status and output; a traceback is no answer."""
        told = CliRunner().invoke(
            app, ["doctor", "--data-dir", str(self.folder), "--model", str(self.model)]
        )
        assert "Traceback" not in told.output
        if not isinstance(told.exception, SystemExit | None):
            return -1, "".join(traceback.format_exception(told.exception))
        return told.exit_code, told.output


def fill(data: Data, edits: int) -> None:
    """Edits of every kind of history, keys, a pending edit and a cancelled one."""
    with data.start() as server:
        client = server.client

        def make(name: str, key: str | None = None, **fields: Any) -> None:
            headers = {} if key is None else {"Idempotency-Key": key}
            response = client.post("/edits", json=BODY | fields, headers=headers)
            assert response.status_code == 201, response.text
            data.ids[name] = response.json()["id"]

        make("old", "k-old", target="older")
        make("new")
        make("other", "k-other", image=picture(2), note="n", tags=["a", "b"])
        make("naming", image=picture(3), supersedes=[data.ids["other"]])
        for number in range(edits):
            make(f"more {number}", image=picture(4 + number % 17), prompt=f"p{number % 40}")
        client.post(f"/admin/edits/{data.ids['naming']}/rollback")
        client.post(f"/edits/{data.ids['new']}/scope", json={"rephrases": ["what?"]})
    with data.start(edit_wait_s=0) as server, server.device_held():
        for name in ("waiting", "cancelled"):
            waiting = server.client.post("/edits", json=BODY | {"prompt": name})
            assert waiting.status_code == 202, waiting.text
            data.ids[name] = waiting.json()["id"]
        server.client.post(f"/edits/{data.ids['cancelled']}/cancel")
        server.drain()
    assert data.doctor()[0] == 0


def made(tmp: pytest.TempPathFactory, checkpoint: Path, edits: int) -> Data:
    data = Data(tmp.mktemp("whole") / "data", checkpoint, {})
    fill(data, edits)
    return data


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> EditableModel:
    return EditableModel.load(str(tiny_checkpoint), device="cpu", questions="none")


@pytest.fixture(scope="module")
def whole(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Never to be changed; tests alter copies."""
    return made(tmp_path_factory, tiny_checkpoint, 4)


@pytest.fixture
def data(whole: Data, tmp_path: Path) -> Data:
    return whole.copied(tmp_path)


def views(data: Data, model: EditableModel) -> dict[str, Any]:
    """What a server that starts on it shows of each edit and key, and which edits it applies."""
    database = Database.open(f"sqlite:///{data.file}")
    try:
        log, jobs = EditLog(database), JobLog(database)
        history = History(
            log, recover(log, jobs, ModelFacts.of(model), model.picture_key, database=database)
        )
        edits, _ = asyncio.run(Catalogue(history, jobs, {}).page(Search(limit=10_000)))
        found: dict[str, Any] = {edit.id: EditView.of(edit).model_dump() for edit in edits}
        for key in ("k-old", "k-other"):
            try:
                found[key] = log.stored_response(IdempotencyKey(key))
            except StoreDamaged as error:
                found[key] = error.code
        for edit_id in history.snapshot.entries:
            found[edit_id]["applied"] = True
        return found
    finally:
        database.close()


def objection(
    data: Data, model: EditableModel, alteration: Alteration, whole: dict[str, Any]
) -> str | None:
    """None if doctor names it, and a server refuses by name or serves all else as it was."""
    status, told = data.doctor()
    if status != 1 or not any(name in told for name in alteration.names):
        return f"{alteration}: doctor says {told}"
    try:
        now = views(data, model)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told of with the alteration
        if not isinstance(error, StartupError | ServiceError):
            return f"{alteration}: {''.join(traceback.format_exception(error))}"
        is_named = any(name in str(error) for name in alteration.names)
        return None if is_named else f"{alteration}: the server says {error}"
    harmed = [n for n in whole if now.get(n) != whole[n] and n not in alteration.names]
    return f"{alteration}: harmed {harmed}" if harmed else None


@pytest.mark.parametrize("seed", range(24))
def test_an_alteration_is_noticed_named_and_harms_nothing_else(
    data: Data, whole: Data, model: EditableModel, seed: int, whole_views: dict[str, Any]
) -> None:
    alteration = alter_at_random(data.file, random.Random(seed))
    assert objection(data, model, alteration, whole_views) is None


@pytest.fixture(scope="module")
def whole_views(
    whole: Data, model: EditableModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return views(whole.copied(tmp_path_factory.mktemp("views")), model)


def test_another_rows_supersedes_altered_leaves_every_edit_as_it_was(
    data: Data, model: EditableModel, whole_views: dict[str, Any]
) -> None:
    everything = str(sorted(data.ids.values())).replace("'", '"')
    bad = data.ids["more 3"]
    alter(data.file, f"UPDATE edits SET supersedes = '{everything}' WHERE id = '{bad}'")
    assert bad in data.doctor()[1]
    now = views(data, model)
    assert now[bad]["status"] == "quarantined"
    assert {k: v for k, v in now.items() if k != bad} == without(whole_views, bad)


def test_a_superseded_edits_prompt_changed_quarantines_that_edit_and_no_other(
    data: Data, model: EditableModel, whole_views: dict[str, Any]
) -> None:
    old = data.ids["old"]
    alter(data.file, f"UPDATE edits SET prompt = 'z', slot_prompt = 'z' WHERE id = '{old}'")
    assert f"edit {old}: its row (table edits) was changed" in data.doctor()[1]
    now = views(data, model)
    assert (now[old]["status"], now[old]["prompt"]) == ("quarantined", "q")
    assert without(now, old) == without(whole_views, old)


def without(views: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: view for key, view in views.items() if key != name}


def test_a_row_copied_beyond_the_head_is_named_and_gives_up_its_place(data: Data) -> None:
    old = data.ids["old"]
    columns = "SELECT name FROM pragma_table_info('edits')"
    with contextlib.closing(sqlite3.connect(data.file)) as connection:
        names = [name for (name,) in connection.execute(columns)]
        head = connection.execute("SELECT version FROM head").fetchone()[0]
    values = [{"id": "'stray'", "version": str(head + 1)}.get(name, name) for name in names]
    alter(data.file, f"INSERT INTO edits SELECT {', '.join(values)} FROM edits WHERE id = '{old}'")
    assert "edit stray: its row (table edits) was brought by no event" in data.doctor()[1]
    alter(data.file, "DELETE FROM edit_jobs")
    with data.start() as server:
        listed = server.client.get("/edits?limit=200").json()["data"]
        assert "stray" not in {edit["id"] for edit in listed}
        response = server.client.post("/edits", json=BODY | {"target": "red"})
        assert (response.status_code, response.json()["version"]) == (201, head + 1)
    with data.start() as server:
        assert server.version() == head + 1


def test_a_row_copied_beyond_the_head_outlives_the_rollback_that_takes_its_number(
    data: Data,
) -> None:
    with contextlib.closing(sqlite3.connect(data.file)) as connection:
        head = connection.execute("SELECT version FROM head").fetchone()[0]
    alter(data.file, f"UPDATE edits SET version = {head + 1} WHERE id = '{data.ids['more 2']}'")
    with data.start() as server:
        eventually(lambda: server.version() == head + 1)  # the edit that was pending
        server.client.post(f"/admin/edits/{data.ids['old']}/rollback")
    with data.start() as server:
        assert server.version() == head + 2
        assert server.client.post("/edits", json=BODY).status_code == 201


def test_the_newest_event_removed_with_the_head_set_back_is_refused_by_name(
    data: Data, model: EditableModel
) -> None:
    with contextlib.closing(sqlite3.connect(data.file)) as connection:
        head = connection.execute("SELECT version FROM head").fetchone()[0]
    alter(
        data.file,
        f"DELETE FROM events WHERE version = {head}",
        f"DELETE FROM seals WHERE version = {head}",
        f"DELETE FROM artifacts WHERE version = {head}",
        f"UPDATE head SET version = {head - 1}",
    )
    status, told = data.doctor()
    assert (status, f"version {head} was committed" in told) == (1, True), told
    with pytest.raises(StartupError, match=f"version {head} was committed"):
        views(data, model)


def test_an_altered_idempotency_body_is_not_sent(data: Data) -> None:
    alter(data.file, "UPDATE idempotency SET body = '{}' WHERE key = 'k-old'")
    assert "the Idempotency-Key k-old" in data.doctor()[1]
    with data.start() as server:
        body = BODY | {"target": "older"}
        for _ in range(2):
            response = server.client.post("/edits", json=body, headers={"Idempotency-Key": "k-old"})
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (500, "store_damaged")
            assert error["param"] == "Idempotency-Key"
            assert error["hint"]


def test_a_removed_idempotency_key_makes_no_second_edit(data: Data) -> None:
    alter(data.file, "DELETE FROM idempotency WHERE key = 'k-old'")
    assert "the Idempotency-Key k-old" in data.doctor()[1]
    with data.start() as server:
        body = BODY | {"target": "older"}
        response = server.client.post("/edits", json=body, headers={"Idempotency-Key": "k-old"})
        assert response.json()["error"]["code"] == "store_damaged"


def test_a_request_altered_after_its_202_is_never_made(data: Data) -> None:
    waiting = data.ids["waiting"]
    alter(
        data.file,
        f"""UPDATE edit_jobs SET request = json_set(request, '$.target', 'wrong')
        WHERE id = '{waiting}'""",
    )
    status, told = data.doctor()
    assert (status, waiting in told) == (1, True)
    with data.start() as server:
        found = server.client.get(f"/edits/{waiting}").json()
        assert (found["status"], found["error"]["code"]) == ("failed", "store_damaged")
        assert found["target"] == ""
        assert waiting not in server.client.get("/admin/events?limit=200").text
        assert server.client.get("/edits?limit=200&status=failed").json()["data"] == [
            {name: value for name, value in found.items() if name != "history"}
        ]


def test_a_removed_pending_edit_is_noticed(data: Data) -> None:
    alter(data.file, f"DELETE FROM edit_jobs WHERE id = '{data.ids['waiting']}'")
    status, told = data.doctor()
    assert (status, "pending" in told) == (1, True)


def test_a_swapped_picture_with_its_digest_made_right_is_never_believed(
    data: Data, tmp_path: Path
) -> None:
    other, new = data.ids["other"], png(tiny_image(99))
    alter(data.file, f"DELETE FROM edit_jobs WHERE id = '{data.ids['waiting']}'")
    with contextlib.closing(sqlite3.connect(data.file)) as connection, connection:
        connection.execute(
            "UPDATE images SET png = ?, png_digest = ? "
            "WHERE digest = (SELECT image_digest FROM edits WHERE id = ?)",
            (new, digest_of(new), other),
        )
    told = data.doctor()[1]
    assert "its row (table images) was changed" in told
    assert f"edit {other}: its picture is missing or damaged" in told
    with data.start() as server:
        response = server.client.post(f"/edits/{other}/scope", json={"rephrases": ["say?"]})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "store_damaged")
    weights = save_tiny_checkpoint(tmp_path / "other", seed=1)
    options = ["--data-dir", str(data.folder), "--model", str(weights), "--verify", "off"]
    told = CliRunner().invoke(app, ["reencode", "--edit", other, *options]).output
    assert f"edit {other} stays stale: A stored picture shows something else" in told


@pytest.mark.slow
def test_five_hundred_alterations_of_two_hundred_edits(
    tiny_checkpoint: Path, model: EditableModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = made(tmp_path_factory, tiny_checkpoint, 196)
    before = views(whole.copied(tmp_path_factory.mktemp("views")), model)
    folder = tmp_path_factory.mktemp("altered")
    objections = []
    for seed in range(500):
        data = whole.copied(folder)
        alteration = alter_at_random(data.file, random.Random(seed))
        objections.append(objection(data, model, alteration, before))
        shutil.rmtree(data.folder)
    assert [told for told in objections if told is not None] == []
