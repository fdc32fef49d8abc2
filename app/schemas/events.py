"""The event log, as it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.schemas.base import INT64, Query
from app.store.ledger import Change, EditStatus
from app.store.records import ListedEvent


class EventsQuery(Query):
    after: Annotated[int, Field(ge=0, le=INT64)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class ChangeView(BaseModel):
    edit_id: str
    from_: EditStatus | None = Field(alias="from")
    to: EditStatus


class ChangesQuery(Query):
    """`after`: how many changes are passed over."""

    after: Annotated[int, Field(ge=0, le=INT64 - 1000)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class ChangeList(BaseModel):
    """`last` is what `after` of the next page is."""

    object: Literal["list"] = "list"
    data: list[ChangeView]
    has_more: bool
    last: int

    @classmethod
    def of(cls, changes: Sequence[Change], *, after: int, has_more: bool) -> ChangeList:
        data = [
            ChangeView.model_validate({"edit_id": c.edit_id, "from": c.before, "to": c.after})
            for c in changes
        ]
        return cls(data=data, has_more=has_more, last=after + len(data))


class MadeByView(BaseModel):
    """Identity of the weights that made an edit's artifact."""

    editor: str
    editor_fingerprint: str
    backbone_fingerprint: str
    router_fingerprint: str


class ReencodingView(BaseModel):
    """What a `reencoded` event brought: by which weights, and how the edit was tried."""

    edit_id: str
    artifact_digest: str
    from_: MadeByView = Field(alias="from")
    to: MadeByView
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[dict[str, str]]
    refinement_steps: int


class RescopingView(BaseModel):
    """The scope that an edit has since, and how the edit was tried."""

    edit_id: str
    rephrases: list[str]
    not_for: list[str]
    artifact_digest: str
    before: str | None
    after: str | None
    verified: bool | None
    verified_version: int | None
    damaged: list[dict[str, str]]
    refinement_steps: int


class EventView(BaseModel):
    """`num_changes` is there where `changes` are not all: the first hundred, and in the history of
    one edit that edit's."""

    version: int
    type: Literal[
        "edit_created",
        "rolled_back",
        "reinstated",
        "restored",
        "imported",
        "reencoded",
        "scope_changed",
    ]
    at: str
    actor: str
    request_id: str
    reason: str | None
    from_version: int | None
    changes: list[ChangeView]
    num_changes: int | None = Field(default=None, exclude_if=lambda number: number is None)
    reencoding: ReencodingView | None = Field(default=None, exclude_if=lambda found: found is None)
    scopes: list[RescopingView] | None = Field(default=None, exclude_if=lambda found: found is None)
    record_digest: str | None
    previous_digest: str | None
    digest: str

    @classmethod
    def of(cls, event: ListedEvent) -> EventView:
        return cls.model_validate(event.wire())


class EventList(BaseModel):
    """`last_version` is that of this page's last event, `version` the newest there is."""

    object: Literal["list"] = "list"
    data: list[EventView]
    has_more: bool
    last_version: int
    version: int
