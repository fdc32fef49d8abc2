"""Correct an answer; read what was corrected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from app.deps import CurrentCaller, CurrentService, body_of, described, described_query, query_of
from app.errors import InvalidField
from app.schemas import (
    EditCreate,
    EditList,
    EditsQuery,
    EditView,
    EditWithHistory,
    EventView,
    NoQuery,
)

router = APIRouter(tags=["edits"])

MAX_KEY = 255


def idempotency_key(
    key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
) -> str | None:
    if key is not None and not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidField(
            f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters.",
            param="Idempotency-Key",
        )
    return key


@router.post(
    "/edits",
    status_code=201,
    response_model=EditView,
    summary="Correct an answer",
    openapi_extra=described(EditCreate),
    dependencies=[Depends(query_of(NoQuery))],
)
async def create_edit(
    request: Request,
    service: CurrentService,
    caller: CurrentCaller,
    key: Annotated[str | None, Depends(idempotency_key)],
    draft: Annotated[EditCreate, Depends(body_of(EditCreate))],
) -> Response:
    """Make the model answer `prompt` on `image` with `target`, from the moment of the answer."""
    answer = await service.create_edit(draft, idempotency_key=key, caller=caller)
    request.state.log["replayed"] = answer.is_replay
    headers = {"Idempotent-Replayed": "true"} if answer.is_replay else {}
    return Response(
        answer.body, status_code=answer.status, media_type="application/json", headers=headers
    )


@router.get("/edits", summary="List edits", openapi_extra=described_query(EditsQuery))
async def list_edits(
    service: CurrentService, query: Annotated[EditsQuery, Depends(query_of(EditsQuery))]
) -> EditList:
    """Newest first. `after` is the last id of the page before."""
    edits, has_more = await service.edits(query)
    return EditList(data=edits, has_more=has_more, last_id=edits[-1].id if edits else None)


@router.get("/edits/{id}", summary="Read one edit", dependencies=[Depends(query_of(NoQuery))])
async def read_edit(service: CurrentService, id: str) -> EditWithHistory:  # noqa: A002
    """The edit with the events that touched it, oldest first."""
    edit = await service.edit(id)
    events = await service.edit_events(id)
    return EditWithHistory(**edit.model_dump(), history=[EventView.of(event) for event in events])
