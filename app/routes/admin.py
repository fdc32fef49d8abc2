"""Take back, put back, and read what happened."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path
from pydantic import WithJsonSchema

from app.deps import CurrentCaller, CurrentService, body_of, described, described_query, query_of
from app.errors import InvalidField
from app.schemas.base import INT64, NoQuery
from app.schemas.events import ChangeList, ChangesQuery, EventList, EventsQuery, EventView
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
        str | None,
        Header(alias="If-Match"),
        WithJsonSchema({"type": "string", "pattern": _IF_MATCH}),
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
    outcome = await service.switching.roll_back(id, reason=body.reason, caller=caller)
    return EditChanged.of(outcome)


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
    outcome = await service.switching.reinstate(
        id, reason=body.reason, force=body.force, caller=caller
    )
    return EditChanged.of(outcome)


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
    """A new version with the edits of an old one, and their scopes; 0 is the base model."""
    done = await service.switching.restore(
        body.to_version, reason=body.reason, caller=caller, if_match=if_match
    )
    return Restored.of(done)


@router.get("/events", summary="Read the event log", openapi_extra=described_query(EventsQuery))
async def list_events(
    service: CurrentService, query: Annotated[EventsQuery, Depends(query_of(EventsQuery))]
) -> EventList:
    """Oldest first, after version `after`. Each event's digest covers the one before it, and all
    of its changes, of which the first hundred are shown."""
    events, has_more = await service.events(after=query.after, limit=query.limit)
    return EventList(
        data=[EventView.of(event) for event in events],
        has_more=has_more,
        last_version=events[-1].event.version if events else query.after,
        version=service.history.head,
    )


@router.get(
    "/events/{version}/changes",
    summary="Read what an event changed",
    openapi_extra=described_query(ChangesQuery),
)
async def list_changes(
    service: CurrentService,
    version: Annotated[int, Path(ge=1, le=INT64)],
    query: Annotated[ChangesQuery, Depends(query_of(ChangesQuery))],
) -> ChangeList:
    """In the event's order, without the first `after`."""
    changes, has_more = await service.changes(version, after=query.after, limit=query.limit)
    return ChangeList.of(changes, after=query.after, has_more=has_more)
