"""Every edit that can be named: the committed ones, and those that are not, or never will be.

An edit moves from the job log to history in one transaction. What is read outside of it is read in
that order, so that an edit on its way is seen twice rather than not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from app.errors import EditNotCommitted, EditNotFound
from app.history import History
from app.orders import IN_QUEUE, Answer, Order
from app.schemas.edits import EditsQuery, EditView
from app.store.job_log import EditJob, JobLog, JobState

_STATUS = {"pending": 202, "failed": 200, "cancelled": 200}
"""201 for whatever was committed."""


class Catalogue:
    """Lives on the event loop's thread. `orders` are those under way, by id."""

    def __init__(self, history: History, log: JobLog, orders: Mapping[str, Order]) -> None:
        self._history = history
        self._log = log
        self._orders = orders

    async def view(self, edit_id: str) -> EditView:
        """One edit as it stands. Raises `EditNotFound`."""
        job = await self._find(edit_id, param="id")
        return await self._history.view(edit_id) if job is None else self._view(job)

    async def standing(self, edit_id: str, *, is_replay: bool) -> Answer:
        """An edit that was answered 202, as it stands."""
        view = await self.view(edit_id)
        status = _STATUS.get(view.status, 201)
        return Answer(status, view.model_dump_json(), edit_id, is_replay)

    async def require_committed(self, edit_id: str, *, param: str = "id") -> None:
        """Raises `EditNotFound`, and `EditNotCommitted` for one that is not, or never will be."""
        job = await self._find(edit_id, param=param)
        if job is not None:
            raise EditNotCommitted(
                f"The edit {edit_id} is {job.state}, not committed.", param=param
            )

    async def page(self, query: EditsQuery) -> tuple[list[EditView], bool]:
        """One page, newest first, and whether there are more.

        Ids increase as edits are asked for, and edits are made in that order; so their order holds
        for all, and an edit keeps its place when it is committed.
        """
        if query.after is not None:
            await self._find(query.after, param="after")
        found: dict[str, EditView] = {}
        match query.status:
            case "pending" | "failed" | "cancelled" as state:
                found |= await self._jobs(query, state)
            case "all":
                found |= await self._jobs(query, None)
                await self._history.settled()
                found |= await self._edits(query)
            case _:
                found |= await self._edits(query)
        newest = [found[edit_id] for edit_id in sorted(found, reverse=True)]
        return newest[: query.limit], len(newest) > query.limit

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

    async def _jobs(self, query: EditsQuery, state: JobState | None) -> dict[str, EditView]:
        jobs = await asyncio.to_thread(
            self._log.jobs,
            state=state,
            below=query.after,
            text=query.q,
            tag=query.tag,
            limit=query.limit + 1,
        )
        return {job.id: self._view(job) for job in jobs}

    async def _edits(self, query: EditsQuery) -> dict[str, EditView]:
        history = self._history
        wanted = {i for i in history.ledger.ids() if query.status in ("all", history.status(i))}
        records = await asyncio.to_thread(
            history.log.records,
            below=query.after,
            text=query.q,
            tag=query.tag,
            limit=query.limit + 1,
            among=wanted,
        )
        return {record.id: EditView.of(record, history.status(record.id)) for record in records}

    def _view(self, job: EditJob) -> EditView:
        if job.state != "pending":
            return EditView.of_job(job, None)
        order = self._orders.get(job.id)
        return EditView.of_job(job, IN_QUEUE if order is None else order.progress)
