"""The one shape of every error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from app.errors import ServiceError


class ErrorDetail(BaseModel):
    model_config = ConfigDict(extra="allow")

    message: str
    type: str
    param: str | None
    code: str
    hint: str
    retryable: bool
    request_id: str

    @classmethod
    def of(cls, error: ServiceError, request_id: str) -> ErrorDetail:
        return cls(**error.fields(request_id))


class ErrorBody(BaseModel):
    """The one shape of every error."""

    error: ErrorDetail
