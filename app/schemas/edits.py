"""Edits: asked for one by one or many at once, and as they are shown."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SkipValidation, WithJsonSchema

from app.schemas.base import EditStatus, Prompt, Query, Request, Text, Verify, not_blank
from app.schemas.errors import ErrorDetail
from app.schemas.events import EventView
from app.store.job_log import EditJob
from app.store.records import EditRecord
from editing_core.identity import nfc

_BEYOND_ANY_TARGET = 100_000


def _as_target(text: str) -> str:
    if len(text) > _BEYOND_ANY_TARGET:  # the model will say so; nothing else is spent on it
        return text
    return not_blank(nfc(text).strip())


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Target = Annotated[
    Text, AfterValidator(_as_target), WithJsonSchema({"type": "string", "pattern": r"\S"})
]
Tag = Annotated[Text, Field(min_length=1, max_length=100), AfterValidator(nfc)]


class EditCreate(Request):
    """A correction: on this picture, to this prompt, the model shall answer `target`."""

    image: str = Field(description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF.")
    prompt: Prompt
    target: Target
    rephrases: Annotated[list[Prompt], Field(max_length=32)] = Field([])
    editor: Annotated[str, Field(min_length=1)] | None = None
    verify: Verify = "strict"
    supersedes: Annotated[list[str], Field(max_length=100), AfterValidator(_unique)] = Field([])
    note: Annotated[Text, Field(max_length=2000)] | None = None
    tags: Annotated[list[Tag], Field(max_length=32), AfterValidator(_unique)] = Field([])


class BatchItem(EditCreate):
    """An edit of a batch, with what would be its `Idempotency-Key` header."""

    idempotency_key: str | None = None


class BatchCreate(Request):
    """Corrections made one after another. Each is read on its own: one mistake spoils one edit."""

    edits: Annotated[list[SkipValidation[BatchItem]], Field(min_length=1)]


class EditsQuery(Query):
    status: EditStatus | Literal["all"] = "all"
    q: Text | None = None
    tag: Annotated[Text, AfterValidator(nfc)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20
    after: str | None = None


class ProgressView(BaseModel):
    """How far a pending edit is. `total` is null where nobody knows it beforehand."""

    model_config = ConfigDict(frozen=True)

    stage: Literal["queue", "fit", "verify"]
    done: int
    total: int | None


def _is_none(value: object) -> bool:
    return value is None


class EditView(BaseModel):
    """`progress` is there while an edit is pending, `error` once it failed."""

    id: str
    version: int | None
    status: EditStatus
    editor: str
    prompt: str
    target: str
    image_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[dict[str, str]]
    refinement_steps: int
    rephrases: list[str]
    supersedes: list[str]
    created_at: str
    created_by: str
    note: str | None
    tags: list[str]
    timings_ms: dict[str, float]
    progress: ProgressView | None = Field(None, exclude_if=_is_none)
    error: ErrorDetail | None = Field(None, exclude_if=_is_none)

    @classmethod
    def of(cls, record: EditRecord, status: EditStatus) -> EditView:
        fields = {name: getattr(record, name) for name in EditRecord.__slots__}
        return cls(status=status, **fields)

    @classmethod
    def of_job(cls, job: EditJob, progress: ProgressView | None) -> EditView:
        """An edit that is not committed. `progress` is None unless it is under way."""
        asked = json.loads(job.request)
        return cls(
            id=job.id,
            version=None,
            status=job.state,
            editor=job.editor,
            prompt=job.prompt,
            target=job.target,
            image_digest=job.image_digest,
            before=None,
            after=None,
            verified=None,
            verified_version=None,
            damaged=[],
            refinement_steps=0,
            rephrases=asked["rephrases"],
            supersedes=asked["supersedes"],
            created_at=job.created_at,
            created_by=job.created_by,
            note=asked["note"],
            tags=list(job.tags),
            timings_ms={},
            progress=progress,
            error=None if job.error is None else json.loads(job.error),
        )


class EditWithHistory(EditView):
    history: list[EventView]


class EditList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EditView]
    has_more: bool
    last_id: str | None
