"""Take back, put back, and read what happened."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header

from app.deps import CurrentCaller, CurrentService, body_of, described, described_query, query_of
from app.errors import InvalidField
from app.schemas.base import NoQuery
from app.schemas.events import EventList, EventsQuery, EventView
from app.schemas.switching import (
    EditChanged,
    ReinstateRequest,
    Restored,
    RestoreRequest,
    RollbackRequest,
)

router = APIRouter(prefix="/admin", tags=["administration"])

_IF_MATCH = r'^(\*|"?\d{1,18}"?)$'
_ENTITY_TAG = re.compile(r'"?(\d{1,18})"?')


async def expected_version(
    if_match: Annotated[
        str | None, Header(alias="If-Match", json_schema_extra={"pattern": _IF_MATCH})
    ] = None,
) -> int | None:
    """The version an `If-Match` names; None where any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    if (match := _ENTITY_TAG.fullmatch(if_match.strip())) is None:
        raise InvalidField('If-Match must be a version in quotes, such as "17".', param="If-Match")
    return int(match.group(1))


@router.post(
    "/edits/{id}/rollback",
    summary="Take one edit back",
    openapi_extra=described(RollbackRequest, required=False),
    dependencies=[Depends(query_of(NoQuery))],
)
async def roll_back(
    service: CurrentService,
    caller: CurrentCaller,
    id: str,  # noqa: A002
    body: Annotated[RollbackRequest, Depends(body_of(RollbackRequest, optional=True))],
) -> EditChanged:
    """Idempotent. Nothing is deleted; what it superseded becomes active again."""
    version, changed, edit = await service.roll_back(id, body, caller)
    return EditChanged(version=version, changed=changed, edit=edit)


@router.post(
    "/edits/{id}/reinstate",
    summary="Put one edit back",
    openapi_extra=described(ReinstateRequest, required=False),
    dependencies=[Depends(query_of(NoQuery))],
)
async def reinstate(
    service: CurrentService,
    caller: CurrentCaller,
    id: str,  # noqa: A002
    body: Annotated[ReinstateRequest, Depends(body_of(ReinstateRequest, optional=True))],
) -> EditChanged:
    """Idempotent. Under a newer edit of the same question it comes back as superseded."""
    version, changed, edit = await service.reinstate(id, body, caller)
    return EditChanged(version=version, changed=changed, edit=edit)


@router.post(
    "/rollback",
    summary="Return to an earlier version",
    openapi_extra=described(RestoreRequest),
    dependencies=[Depends(query_of(NoQuery))],
)
async def restore(
    service: CurrentService,
    caller: CurrentCaller,
    if_match: Annotated[int | None, Depends(expected_version)],
    body: Annotated[RestoreRequest, Depends(body_of(RestoreRequest))],
) -> Restored:
    """A new version with the edits of an old one; 0 is the base model. History only grows."""
    version, changes = await service.restore(body, caller, if_match=if_match)
    return Restored(
        version=version,
        changed=bool(changes),
        rolled_back=[c.edit_id for c in changes if c.after == "rolled_back"],
        reinstated=[c.edit_id for c in changes if c.before == "rolled_back"],
        superseded=[c.edit_id for c in changes if c.after == "superseded"],
    )


@router.get("/events", summary="Read the event log", openapi_extra=described_query(EventsQuery))
async def list_events(
    service: CurrentService, query: Annotated[EventsQuery, Depends(query_of(EventsQuery))]
) -> EventList:
    """Oldest first, after version `after`. Each event's digest covers the one before it."""
    events, has_more = await service.events(query)
    return EventList(
        data=[EventView.of(event) for event in events],
        has_more=has_more,
        last_version=events[-1].version if events else query.after,
        version=service.history.head,
    )
