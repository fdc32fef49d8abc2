"""Edits taken back and put back: one, or all at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from app.edits.switch import Outcome
from app.schemas.base import INT64, Reason, Request
from app.schemas.edits import EditView


class RollbackRequest(Request):
    reason: Reason | None = None


class ReinstateRequest(Request):
    reason: Reason | None = None
    force: bool = False


class RestoreRequest(Request):
    to_version: Annotated[int, Field(ge=0, le=INT64)]
    reason: Reason | None = None


class EditChanged(BaseModel):
    version: int
    changed: bool
    edit: EditView

    @classmethod
    def of(cls, outcome: Outcome) -> EditChanged:
        return cls(version=outcome.version, changed=outcome.changed, edit=EditView.of(outcome.edit))


class Restored(BaseModel):
    version: int
    changed: bool
    rolled_back: list[str]
    reinstated: list[str]
    superseded: list[str]
