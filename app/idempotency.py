"""Idempotency keys: one request at a time with each, and the same edit for every one after it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from app.catalogue import Catalogue
from app.errors import IdempotencyInProgress, IdempotencyMismatch
from app.orders import Answer
from app.store.edit_log import EditLog
from app.store.job_log import JobLog


class IdempotencyKeys:
    """One per process; lives on the event loop's thread. A key of None is no key."""

    def __init__(self, log: EditLog, jobs: JobLog, catalogue: Catalogue) -> None:
        self._log = log
        self._jobs = jobs
        self._catalogue = catalogue
        self._claimed: dict[str, str] = {}

    @contextmanager
    def claim(self, key: str | None, digest: str) -> Iterator[None]:
        """Nobody else uses `key` while the block runs; `digest` is the request's.

        Raises `IdempotencyInProgress`, and `IdempotencyMismatch` when the request is another one.
        """
        if key is None:
            yield
            return
        if (running := self._claimed.get(key)) is not None:
            _require_same(running, digest)
            raise IdempotencyInProgress("A request with this Idempotency-Key is still running.")
        self._claimed[key] = digest
        try:
            yield
        finally:
            del self._claimed[key]

    async def replay(self, key: str | None, digest: str) -> Answer | None:
        """What `key` is answered with; None if it is new.

        An edit that was committed in time gives its answer again, byte for byte; one that was
        answered 202, the edit as it stands. Raises `IdempotencyMismatch`.
        """
        if key is None:
            return None
        # In this order: what is committed in between is found by the second look.
        job = await asyncio.to_thread(self._jobs.by_key, key)
        if job is not None:
            _require_same(job.request_digest, digest)
            return await self._catalogue.standing(job.id, is_replay=True)
        stored = await asyncio.to_thread(self._log.stored_response, key)
        if stored is None:
            return None
        _require_same(stored.request_digest, digest)
        if stored.status == 202:
            return await self._catalogue.standing(stored.edit_id, is_replay=True)
        return Answer(stored.status, stored.body, stored.edit_id, is_replay=True)


def _require_same(known: str, digest: str) -> None:
    if known != digest:
        raise IdempotencyMismatch(
            "This Idempotency-Key was used for a different request.", param="Idempotency-Key"
        )
