"""Feedback: what people say of answers, and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.schemas.base import Query, Reason, Request, Text
from app.store.feedback_log import Closing, Report

Said = Annotated[Text, Field(min_length=1, max_length=4000)]


class FeedbackCreate(Request):
    answer_id: Annotated[str, Field(min_length=1, max_length=100)]
    verdict: Literal["right", "wrong"]
    correction: Said | None = None
    comment: Said | None = None


class FeedbackMade(BaseModel):
    id: str
    status: str


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
    """`applied` are the edits that took part in the answer. `image_digest` is null without one."""

    id: str
    status: str
    answer_id: str
    verdict: str
    correction: str | None
    comment: str | None
    prompt: str
    answer: str
    image_digest: str | None
    version: int
    applied: list[str]
    created_at: str
    created_by: str
    closed_by: str | None
    edit_id: str | None
    reason: str | None
    closed_at: str | None
    closed_actor: str | None

    @classmethod
    def of(cls, report: Report) -> FeedbackView:
        fields = {name: getattr(report, name) for name in cls.model_fields}
        return cls(**fields | {"applied": json.loads(report.applied)})


class FeedbackList(BaseModel):
    object: str = "list"
    data: list[FeedbackView]
    has_more: bool
    last_id: str | None
