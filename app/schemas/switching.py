"""Edits taken back and put back: one, or all at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from app.edits.edit import Outcome
from app.edits.switch import Restoration
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
    """`rescoped` is there where scopes were brought back."""

    version: int
    changed: bool
    rolled_back: list[str]
    reinstated: list[str]
    superseded: list[str]
    rescoped: list[str] = Field([], exclude_if=lambda ids: not ids)

    @classmethod
    def of(cls, done: Restoration) -> Restored:
        switched = [change for change in done.changes if change.before != change.after]
        return cls(
            version=done.version,
            changed=bool(done.changes),
            rolled_back=[c.edit_id for c in switched if c.after == "rolled_back"],
            reinstated=[c.edit_id for c in switched if c.before == "rolled_back"],
            superseded=[c.edit_id for c in switched if c.after == "superseded"],
            rescoped=list(done.rescoped),
        )
