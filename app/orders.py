"""An edit that was asked for and is not there yet: what it is to be, and how far it has come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from app.history import Caller
from app.schemas.edits import EditCreate, ProgressView
from app.store.edit_log import StoredImage
from app.store.job_log import EditJob
from app.store.ledger import LedgerEdit
from app.timing import Stopwatch
from editing_core.identity import slot_prompt

IN_QUEUE = ProgressView(stage="queue", done=0, total=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to `POST /edits`. The body is fixed: what it says was so when it was made."""

    status: int
    body: str
    edit_id: str
    is_replay: bool = False


@dataclass(slots=True, eq=False)
class Order:
    """One accepted request. `id` is what the edit's will be; `draft` is without its picture.

    Both flags change under `History.lock` only. `is_kept`: it lies in the job log, and so outlives
    its request and the process. `is_over`: it was committed, failed or was withdrawn, and nothing
    may be made of it any more.
    """

    id: str
    draft: EditCreate
    editor: str
    image_digest: str
    caller: Caller
    key: str | None
    request_digest: str
    created_at: str
    image: StoredImage | None
    is_kept: bool = False
    is_over: bool = False
    progress: ProgressView = IN_QUEUE
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def resumed(cls, job: EditJob) -> Order:
        """What an earlier process kept. Raises `ValueError` when this one cannot read it."""
        return cls(
            id=job.id,
            draft=EditCreate.model_validate({**json.loads(job.request), "image": ""}),
            editor=job.editor,
            image_digest=job.image_digest,
            caller=Caller(job.request_id, job.created_by),
            key=job.idempotency_key,
            request_digest=job.request_digest,
            created_at=job.created_at,
            image=None,
            is_kept=True,
        )

    def job(self) -> EditJob:
        """What is kept of it."""
        return EditJob(
            id=self.id,
            state="pending",
            editor=self.editor,
            request=self.draft.model_dump_json(exclude={"image"}),
            image_digest=self.image_digest,
            idempotency_key=self.key,
            request_digest=self.request_digest,
            created_at=self.created_at,
            created_by=self.caller.actor,
            request_id=self.caller.request_id,
        )

    def place(self, version: int) -> LedgerEdit:
        slot = (self.image_digest, slot_prompt(self.draft.prompt))
        return LedgerEdit(self.id, version, slot, tuple(self.draft.supersedes))
