"""Feedback: what people say of answers, and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.feedback.desk import Complaint, Foreign
from app.schemas.base import Prompt, Query, Reason, Request, Text
from app.store.feedback_log import Closing, Report

Said = Annotated[Text, Field(min_length=1, max_length=4000)]


class Judged(Request):
    verdict: Literal["right", "wrong"]
    correction: Said | None = None
    comment: Said | None = None

    def complaint(self) -> Complaint:
        return Complaint(self.verdict, self.correction, self.comment)


class FeedbackCreate(Judged):
    answer_id: Annotated[str, Field(min_length=1, max_length=100)]


class FeedbackImport(Judged):
    """A report from elsewhere, with all that this server cannot know of its answer."""

    source: Annotated[Text, Field(min_length=1, max_length=100)]
    source_id: Annotated[Text, Field(min_length=1, max_length=200)]
    prompt: Annotated[Prompt, Field(max_length=20_000)]
    answer: Annotated[Text, Field(max_length=20_000)]
    image: str | None = Field(
        None, description="A data URI, or bare base64, of a PNG, JPEG, WebP or GIF."
    )

    def foreign(self) -> Foreign:
        return Foreign(
            source=self.source,
            source_id=self.source_id,
            prompt=self.prompt,
            answer=self.answer,
            image=self.image,
        )


class FeedbackMade(BaseModel):
    id: str
    status: str


class FeedbackTaken(FeedbackMade):
    """`known`: it was here already, and nothing was changed."""

    known: bool


class FeedbackQuery(Query):
    status: Literal["open", "resolved", "dismissed", "all"] = "open"
    after: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class FeedbackResolve(Request):
    by: Literal["edit", "scope", "dismissal"]
    edit_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    reason: Reason | None = None

    def closing(self) -> Closing:
        return Closing(self.by, self.edit_id, self.reason)


class FeedbackView(BaseModel):
    """`applied` are the edits that took part in the answer. `image_digest` is null without one.

    A report from elsewhere has `source` and `source_id` instead of `answer_id` and `version`.
    """

    id: str
    status: str
    answer_id: str | None
    verdict: str
    correction: str | None
    comment: str | None
    prompt: str
    answer: str
    image_digest: str | None
    version: int | None
    applied: list[str]
    created_at: str
    created_by: str
    closed_by: str | None
    edit_id: str | None
    reason: str | None
    closed_at: str | None
    closed_actor: str | None
    source: str | None
    source_id: str | None

    @classmethod
    def of(cls, report: Report) -> FeedbackView:
        fields = {name: getattr(report, name) for name in cls.model_fields}
        return cls(**fields | {"applied": json.loads(report.applied)})


class FeedbackList(BaseModel):
    object: str = "list"
    data: list[FeedbackView]
    has_more: bool
    last_id: str | None
