"""Edits that were answered 202 and are not committed: what was asked, and how it ended.

All functions block and belong on a worker thread. Whoever writes holds `History.lock`, so that an
edit is never both committed and something else. The commit itself deletes the row (`edit_log.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from app.errors import StoreCorrupt
from app.store import tables
from app.store.database import Database
from app.store.edit_log import intact_png, matches
from app.store.records import IdempotencyKey, StoredImage, digest_of

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


_JOB = sa.select(*(_jobs[name] for name in EditJob.__slots__))


class JobLog:
    """Reads and writes `edit_jobs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: EditJob, image: StoredImage) -> None:
        """Keep a pending job. Raises `StoreUnavailable`."""
        row = {name: getattr(job, name) for name in EditJob.__slots__}
        with self._database.write() as connection:
            connection.execute(
                sa.insert(tables.edit_jobs).values(
                    **row,
                    png=image.png,
                    png_digest=digest_of(image.png),
                    width=image.width,
                    height=image.height,
                    updated_at=job.created_at,
                )
            )

    def settle(
        self,
        job_id: str,
        state: Literal["failed", "cancelled"],
        *,
        error: str | None = None,
        at: str,
    ) -> None:
        """End a pending job; its picture is forgotten.

        Raises `StoreUnavailable`, and `StoreCorrupt` when there is no such job.
        """
        with self._database.write() as connection:
            ended = connection.execute(
                sa.update(tables.edit_jobs)
                .where(_jobs.id == job_id, _jobs.state == "pending")
                .values(state=state, error=error, png=None, png_digest=None, updated_at=at)
            )
            if ended.rowcount != 1:
                raise StoreCorrupt(f"edit {job_id} is not pending in the database")

    def job(self, job_id: str) -> EditJob | None:
        return self._one(_JOB.where(_jobs.id == job_id))

    def by_key(self, key: IdempotencyKey) -> EditJob | None:
        """The job that was asked for under this idempotency key."""
        return self._one(
            _JOB.where(_jobs.api_key == key.api_key, _jobs.idempotency_key == key.name)
        )

    def pending(self) -> list[EditJob]:
        """In the order they are to be made."""
        query = _JOB.where(_jobs.state == "pending").order_by(_jobs.id)
        with self._database.read() as connection:
            return [_of_row(row) for row in connection.execute(query).mappings()]

    def image(self, job_id: str) -> StoredImage | None:
        """The picture of a pending job; None when it is missing or damaged."""
        query = sa.select(tables.edit_jobs).where(_jobs.id == job_id)
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        png = None if row is None else intact_png(row)
        if row is None or png is None:
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
        if state is not None:
            query = query.where(_jobs.state == state)
        if below is not None:
            query = query.where(_jobs.id < below)
        with self._database.read() as connection:
            rows = connection.execution_options(yield_per=_PAGE).execute(query).mappings()
            for job in map(_of_row, rows):
                if matches(job, text, tag):
                    found.append(job)
                    if len(found) == limit:
                        break
        return found

    def newest_id(self) -> str | None:
        with self._database.read() as connection:
            newest: str | None = connection.scalar(sa.select(sa.func.max(_jobs.id)))
        return newest

    def _one(self, query: sa.Select[Any]) -> EditJob | None:
        with self._database.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _of_row(row)


def _of_row(row: Mapping[Any, Any]) -> EditJob:
    return EditJob(**{name: row[name] for name in EditJob.__slots__})
