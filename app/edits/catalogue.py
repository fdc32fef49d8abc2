"""Every edit that can be named: the committed ones, and those that are not, or never will be.

An edit moves from the job log to history in one transaction. What is read outside of it is read in
that order, so that an edit on its way is seen twice rather than not at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.edits.edit import Answer, Edit, Work
from app.errors import EditNotCommitted, EditNotFound, IdempotencyMismatch, InsufficientScope
from app.history import Caller, History
from app.store.edit_log import StoredResponse, matches
from app.store.job_log import EditJob, JobLog, JobState
from app.store.ledger import EditStatus
from app.store.records import EditRecord, IdempotencyKey

_UNKNOWN = frozenset({"not_for"})
"""Fields of an edit that earlier releases did not know. Those kept whole bodies, and orders without
them: keys that they took are answered in their words."""


_LOOKED_AT = 1000
"""Ids that a search takes from the database at a time."""
_READ_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Search:
    """Which edits are listed. `after` is the last id of the page before."""

    status: EditStatus | Literal["all"] = "all"
    text: str | None = None
    tag: str | None = None
    limit: int = 20
    after: str | None = None


class Catalogue:
    """Lives on the event loop's thread. `under_way` are edits not committed yet, by id."""

    def __init__(self, history: History, log: JobLog, under_way: Mapping[str, Work]) -> None:
        self._history = history
        self._log = log
        self._under_way = under_way

    async def view(self, edit_id: str) -> Edit:
        """One edit as it stands. Raises `EditNotFound`."""
        job = await self._find(edit_id, param="id")
        return await self.committed(edit_id) if job is None else self._of_job(job)

    async def committed(self, edit_id: str) -> Edit:
        """One edit of history, as it stands. Raises `EditNotFound`."""
        self._history.require(edit_id)
        record = await asyncio.to_thread(self._history.log.record, edit_id)
        return self._of_record(_there(record, edit_id))

    async def require_committed(self, edit_id: str, *, param: str = "id") -> None:
        """Raises `EditNotFound`, and `EditNotCommitted` for one that is not, or never will be."""
        job = await self._find(edit_id, param=param)
        if job is not None:
            raise EditNotCommitted(
                f"The edit {edit_id} is {job.state}, not committed.", param=param
            )

    async def require_own(self, edit_id: str, caller: Caller, *, param: str) -> None:
        """Raises `InsufficientScope` for an edit of somebody else, unless an admin asks."""
        if not caller.is_admin and (await self.view(edit_id)).created_by != caller.actor:
            raise InsufficientScope(
                f"The edit {edit_id} was made with another key, so only an admin may replace it.",
                param=param,
            )

    async def replay(self, key: IdempotencyKey, request_digest: str) -> Answer | None:
        """What an idempotency key is answered with; None if it is new.

        An edit that was committed in time gives its answer again, byte for byte; one that was
        answered 202, the edit as it stands. Raises `IdempotencyMismatch`.
        """
        # In this order: what is committed in between is found by the second look.
        job = await asyncio.to_thread(self._log.by_key, key)
        if job is not None:
            require_same(job.request_digest, request_digest)
            unknown = frozenset[str]() if "not_for" in json.loads(job.request) else _UNKNOWN
            return Answer(await self.view(job.id), is_replay=True, unknown=unknown)
        stored = await asyncio.to_thread(self._history.log.stored_response, key)
        if stored is None:
            return None
        require_same(stored.request_digest, request_digest)
        if stored.status == 202:
            unknown = frozenset[str]() if stored.body is None else _UNKNOWN
            return Answer(await self.view(stored.edit_id), is_replay=True, unknown=unknown)
        return await self._as_it_was_answered(stored)

    async def _as_it_was_answered(self, stored: StoredResponse) -> Answer:
        record = await asyncio.to_thread(self._history.log.first_record, stored.edit_id)
        edit = Edit.of_record(_there(record, stored.edit_id), "active")
        return Answer(edit, is_replay=True, body=stored.body)

    async def page(self, search: Search) -> tuple[list[Edit], bool]:
        """One page, newest first, and whether there are more.

        Ids increase as edits are asked for, and edits are made in that order; so their order holds
        for all, and an edit keeps its place when it is committed.
        """
        if search.after is not None:
            await self._find(search.after, param="after")
        found: dict[str, Edit] = {}
        match search.status:
            case "pending" | "failed" | "cancelled" as state:
                found |= await self._jobs(search, state)
            case "all":
                found |= await self._jobs(search, None)
                await self._history.settled()
                found |= await self._edits(search)
            case _:
                found |= await self._edits(search)
        newest = [found[edit_id] for edit_id in sorted(found, reverse=True)]
        return newest[: search.limit], len(newest) > search.limit

    async def _find(self, edit_id: str, *, param: str) -> EditJob | None:
        """The job of an edit that is not committed; None if it is."""
        history = self._history
        if edit_id in history.ledger:
            return None
        job = await asyncio.to_thread(self._log.job, edit_id)
        if job is None:
            await history.settled()
            if edit_id not in history.ledger:
                raise EditNotFound(f"There is no edit {edit_id!r}.", param=param)
        return job

    async def _jobs(self, search: Search, state: JobState | None) -> dict[str, Edit]:
        jobs = await asyncio.to_thread(
            self._log.jobs,
            state=state,
            below=search.after,
            text=search.text,
            tag=search.tag,
            limit=search.limit + 1,
        )
        return {job.id: self._of_job(job) for job in jobs}

    async def _edits(self, search: Search) -> dict[str, Edit]:
        ids = await self._candidates(search, search.after)
        found: dict[str, Edit] = {}
        while ids and len(found) <= search.limit:
            records = await asyncio.to_thread(self._history.log.records, ids)
            for record in records:
                if matches(record, search.text, search.tag):
                    found[record.id] = self._of_record(record)
            more = search.text is not None or search.tag is not None
            ids = await self._candidates(search, ids[-1]) if more else []
        return found

    async def _candidates(self, search: Search, below: str | None) -> list[str]:
        """Ids for one page, newest first, of edits with the status; all that match among them."""
        roll, limit = self._history.roll, search.limit + 1
        status = None if search.status == "all" else search.status
        if search.text is None and search.tag is None:
            return roll.newest(status=status, below=below, limit=limit)
        while True:
            ids = await asyncio.to_thread(
                self._history.log.search,
                below=below,
                text=search.text,
                tag=search.tag,
                limit=_LOOKED_AT,
            )
            fit = [i for i in ids if i in roll and status in (None, roll.status(i))]
            if fit or len(ids) < _LOOKED_AT:
                return fit[: max(limit, _READ_AT_ONCE)]
            below = ids[-1]

    def _of_record(self, record: EditRecord) -> Edit:
        return Edit.of_record(record, self._history.status(record.id))

    def _of_job(self, job: EditJob) -> Edit:
        work = self._under_way.get(job.id) if job.state == "pending" else None
        return Edit.of_job(job) if work is None else work.edit


def _there(record: EditRecord | None, edit_id: str) -> EditRecord:
    if record is None:  # the ledger is made of the same rows
        raise LookupError(f"edit {edit_id} vanished from the database")
    return record


def require_same(known: str, digest: str) -> None:
    """Two requests under one key. Raises `IdempotencyMismatch`."""
    if known != digest:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used for a different request.", param="Idempotency-Key"
        )
