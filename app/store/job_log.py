"""Edits that were answered 202 and are not committed: what was asked, and how it ended.

All functions block and belong on a worker thread. Whoever writes holds `History.lock`, so that an
edit is never both committed and something else. The commit itself deletes the row (`writing.py`).

Each row carries its seal, and `store` a digest of all of them. A row that does not agree with its
seal is read as a failed edit of which nothing else is known: what it asks for is never made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from app.errors import StoreDamaged
from app.store import owner, tables
from app.store.database import Database
from app.store.edit_log import intact_png, matches
from app.store.records import IdempotencyKey, StoredImage, digest_of
from app.store.seals import seal_of, sealed_columns

JobState = Literal["pending", "failed", "cancelled"]

_PAGE = 100
_jobs = tables.edit_jobs.c


@dataclass(frozen=True, slots=True, kw_only=True)
class EditJob:
    """One row of `edit_jobs`, all but its picture. `request` and `error` are JSON objects.

    `request` is the stored form of an order (`app/edits/edit.py`); here it is only searched.
    """

    id: str
    state: JobState
    editor: str
    request: str
    image_digest: str
    error: str | None = None
    api_key: str = ""
    idempotency_key: str | None
    request_digest: str
    created_at: str
    created_by: str
    request_id: str

    @property
    def prompt(self) -> str:
        return str(json.loads(self.request)["prompt"])

    @property
    def target(self) -> str:
        return str(json.loads(self.request)["target"])

    @property
    def tags(self) -> tuple[str, ...]:
        return tuple(json.loads(self.request)["tags"])


_JOB = sa.select(*sealed_columns(tables.edit_jobs), _jobs.seal)
_NOTHING = json.dumps(
    {"prompt": "", "target": "", "rephrases": [], "supersedes": [], "note": None, "tags": []}
)
_CHANGED = StoreDamaged(
    "What was asked for was changed in the database, so it is not made.",
    hint="Send the request again, under a new Idempotency-Key.",
)


class JobLog:
    """Reads and writes `edit_jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: EditJob, image: StoredImage) -> None:
        """Keep a pending job. Raises `StoreUnavailable`."""
        row = {name: getattr(job, name) for name in EditJob.__slots__} | {
            "png": image.png,
            "png_digest": digest_of(image.png),
            "width": image.width,
            "height": image.height,
            "updated_at": job.created_at,
        }
        seal = seal_of(tables.edit_jobs, row)
        with self._database.write() as connection:
            connection.execute(sa.insert(tables.edit_jobs).values(**row, seal=seal))
            owner.count_job(connection, seal)

    def settle(
        self,
        job_id: str,
        state: Literal["failed", "cancelled"],
        *,
        error: str | None = None,
        at: str,
    ) -> None:
        """End a pending job; its picture is forgotten.

        Raises `StoreUnavailable`, and `StoreDamaged` when there is no such job, or not as it was.
        """
        this = _jobs.id == job_id
        with self._database.write() as connection:
            row = connection.execute(_JOB.where(this)).mappings().one_or_none()
            if row is None or row["state"] != "pending" or not _is_sound(row):
                raise StoreDamaged(f"The edit {job_id} is not pending in the database.")
            end = {"state": state, "error": error, "png_digest": None, "updated_at": at}
            seal = seal_of(tables.edit_jobs, {**row, **end})
            connection.execute(
                sa.update(tables.edit_jobs).where(this).values(**end, png=None, seal=seal)
            )
            owner.count_job(connection, row["seal"], seal)

    def job(self, job_id: str) -> EditJob | None:
        with self._database.read() as connection:
            row = connection.execute(_JOB.where(_jobs.id == job_id)).mappings().one_or_none()
        return None if row is None else _of_row(row)

    def by_key(self, key: IdempotencyKey) -> EditJob | None:
        """The job that was asked for under this idempotency key.

        Raises `StoreDamaged` where it is no longer told what that was.
        """
        query = _JOB.where(_jobs.api_key == key.api_key, _jobs.idempotency_key == key.name)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is not None and not _is_sound(row):
            raise _CHANGED
        return None if row is None else _of_row(row)

    def pending(self) -> list[EditJob]:
        """In the order they are to be made."""
        query = _JOB.where(_jobs.state == "pending").order_by(_jobs.id)
        with self._database.read() as connection:
            jobs = [_of_row(row) for row in connection.execute(query).mappings()]
        return [job for job in jobs if job.state == "pending"]

    def image(self, job_id: str) -> StoredImage | None:
        """The picture of a pending job; None when it is missing or damaged."""
        query = sa.select(tables.edit_jobs).where(_jobs.id == job_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        png = None if row is None else intact_png(row)
        if row is None or png is None or not _is_sound(row):
            return None
        return StoredImage(row["image_digest"], png, row["width"], row["height"])

    def jobs(
        self,
        *,
        state: JobState | None = None,
        below: str | None = None,
        text: str | None = None,
        tag: str | None = None,
        limit: int,
    ) -> list[EditJob]:
        """Up to `limit` jobs, newest first, older than the id `below`."""
        found: list[EditJob] = []
        query = _JOB.order_by(_jobs.id.desc())
        if below is not None:
            query = query.where(_jobs.id < below)
        with (
            self._database.read() as connection,
            connection.execution_options(yield_per=_PAGE).execute(query) as rows,
        ):
            for job in map(_of_row, rows.mappings()):
                if state in (None, job.state) and matches(job, text, tag):
                    found.append(job)
                    if len(found) == limit:
                        break
        return found

    def newest_id(self) -> str | None:
        """The highest id of those that can be believed."""
        query = _JOB.order_by(_jobs.id.desc())
        with (
            self._database.read() as connection,
            connection.execution_options(yield_per=_PAGE).execute(query) as rows,
        ):
            return next((str(row["id"]) for row in rows.mappings() if _is_sound(row)), None)


def _of_row(row: Mapping[Any, Any]) -> EditJob:
    if _is_sound(row):
        return EditJob(**{name: row[name] for name in EditJob.__slots__})
    return EditJob(
        id=str(row["id"]),
        state="failed",
        editor="",
        request=_NOTHING,
        image_digest="",
        error=json.dumps(_CHANGED.fields("")),
        idempotency_key=None,
        request_digest="",
        created_at=str(row["created_at"]),
        created_by="",
        request_id="",
    )


def _is_sound(row: Mapping[Any, Any]) -> bool:
    return bool(seal_of(tables.edit_jobs, row) == row["seal"])
