"""Databases that earlier versions wrote are brought up to date, with everything in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa

from app.store import tables
from app.store.database import Database
from app.store.edit_log import EditLog, Finished, NewEdit, StoredImage, StoredResponse
from app.store.job_log import EditJob, JobLog
from app.store.ledger import Change
from app.store.records import EditRecord, Event, digest_of

IMAGE = StoredImage("sha256:i", b"png", 1, 1)
RECORD = EditRecord(
    id="01E",
    version=1,
    editor="liveedit",
    prompt="q",
    target="t",
    image_digest=IMAGE.digest,
    before=None,
    after=None,
    verified=None,
    verified_version=None,
    created_at="2026-01-01T00:00:00.000Z",
    created_by="local",
)
EVENT = Event(
    version=1,
    type="edit_created",
    at=RECORD.created_at,
    actor="local",
    request_id="r",
    changes=(Change(RECORD.id, None, "active"),),
    record_digest=RECORD.digest(digest_of(b"artifact")),
)
JOB = EditJob(
    id="01F",
    state="pending",
    editor="liveedit",
    request='{"prompt": "q", "target": "t", "tags": []}',
    image_digest=IMAGE.digest,
    idempotency_key="k",
    request_digest="d",
    created_at=RECORD.created_at,
    created_by="local",
    request_id="r",
)


def write_first_schema(file: Path) -> None:
    """A database as the first migration left it, with one edit."""
    engine = sa.create_engine(f"sqlite:///{file}")
    config = alembic.config.Config()
    config.set_main_option("script_location", "migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "0001")
        event, edit = EVENT.row(), RECORD.row()
        image = {"digest": IMAGE.digest, "png": IMAGE.png, "width": 1, "height": 1}
        artifact = {"edit_id": RECORD.id, "data": b"artifact", "digest": digest_of(b"artifact")}
        key = {"api_key": "", "key": "old", "request_digest": "d", "status": 201, "body": "{}"}
        for table, row in (
            (tables.events, event),
            (tables.images, image | {"png_digest": digest_of(IMAGE.png)}),
            (tables.edits, edit),
            (tables.artifacts, artifact),
            (tables.idempotency, key | {"edit_id": RECORD.id, "created_at": RECORD.created_at}),
        ):
            connection.execute(sa.insert(table).values(row))
        connection.execute(sa.update(tables.head).values(version=1))
    engine.dispose()


def test_0002_keeps_what_was_there_and_adds_jobs(tmp_path: Path) -> None:
    write_first_schema(tmp_path / "errata.db")

    database = Database.open(f"sqlite:///{tmp_path / 'errata.db'}")
    log, jobs = EditLog(database), JobLog(database)

    ledger, last = log.fold()
    assert (ledger.active(), last) == ([RECORD.id], EVENT)
    assert log.record(RECORD.id) == RECORD
    assert log.stored_response("old") == StoredResponse("d", 201, "{}", RECORD.id)
    assert (log.image(IMAGE.digest), jobs.newest_id()) == (b"png", None)

    jobs.add(JOB, IMAGE)
    assert (jobs.pending(), jobs.job(JOB.id), jobs.by_key("k")) == ([JOB], JOB, JOB)
    assert jobs.image(JOB.id) == IMAGE
    record = replace(RECORD, id=JOB.id, version=2)
    event = Event(
        version=2,
        type="edit_created",
        at=RECORD.created_at,
        actor="local",
        request_id="r",
        changes=(Change(JOB.id, None, "active"), Change(RECORD.id, "active", "superseded")),
        previous_digest=EVENT.digest,
    )
    answered = Finished({}, StoredResponse("d", 202, "{}", JOB.id))
    log.append(event, new=NewEdit(record, b"artifact", IMAGE, lambda: answered, "k"))
    assert (jobs.job(JOB.id), log.stored_response("k")) == (None, answered.response)
    database.close()
