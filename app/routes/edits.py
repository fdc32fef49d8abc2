"""Correct an answer; read what was corrected."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import WithJsonSchema

from app.batch import BatchRun
from app.deps import (
    CurrentAllowance,
    CurrentCaller,
    CurrentRuntime,
    CurrentService,
    body_of,
    described,
    described_query,
    idempotency_key,
    query_of,
)
from app.errors import InvalidField
from app.schemas.base import NoBody, NoQuery
from app.schemas.edits import (
    BatchCreate,
    EditCreate,
    EditList,
    EditsQuery,
    EditView,
    EditWithHistory,
    ListedEdit,
    body_of_answer,
)
from app.schemas.events import EventView
from app.schemas.scope import ScopeRequest
from app.schemas.switching import EditChanged

router = APIRouter(tags=["edits"])

_KEY = r"^[ -~]{1,255}$"


async def key_header(
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key"),
        WithJsonSchema({"type": "string", "pattern": _KEY}),
    ] = None,
) -> str | None:
    return idempotency_key(key, param="Idempotency-Key")


@router.post(
    "/edits",
    status_code=201,
    response_model=EditView,
    responses={202: {"model": EditView, "description": "It takes longer; Location says where."}},
    summary="Correct an answer",
    openapi_extra=described(EditCreate),
    dependencies=[Depends(query_of(NoQuery))],
)
async def create_edit(
    request: Request,
    service: CurrentService,
    caller: CurrentCaller,
    allow: CurrentAllowance,
    key: Annotated[str | None, Depends(key_header)],
    draft: Annotated[EditCreate, Depends(body_of(EditCreate))],
) -> Response:
    """Make the model answer `prompt` on `image` with `target`, from the moment of a 201.

    202: the edit is still being made. `GET` what `Location` names until it is no longer pending.
    """
    allow(1)
    answer = await service.queue.create(draft.order(), draft.image, key=key, caller=caller)
    request.state.log["replayed"] = answer.is_replay
    headers = {"Idempotent-Replayed": "true"} if answer.is_replay else {}
    if answer.status == 202:
        headers["Location"] = f"/edits/{answer.edit.id}"
    return Response(
        body_of_answer(answer),
        status_code=answer.status,
        media_type="application/json",
        headers=headers,
    )


@router.post(
    "/edits/batch",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    summary="Correct many answers",
    openapi_extra=described(BatchCreate),
    dependencies=[Depends(query_of(NoQuery))],
)
async def create_edits(
    request: Request,
    service: CurrentService,
    runtime: CurrentRuntime,
    caller: CurrentCaller,
    allow: CurrentAllowance,
    batch: Annotated[BatchCreate, Depends(body_of(BatchCreate))],
) -> StreamingResponse:
    """Newline-delimited JSON: a line for each edit, in order, as it is committed or refused."""
    limit = runtime.settings.batch_limit
    if len(batch.edits) > limit:
        raise InvalidField(
            f"A batch may hold {limit} edits; this one has {len(batch.edits)}.",
            param="edits",
            hint="Send several smaller batches, one after the other.",
        )
    allow(len(batch.edits))
    run = BatchRun(service, batch.edits, caller, refusal=runtime.refusal, log=request.state.log)
    return StreamingResponse(
        run.lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"}
    )


@router.get("/edits", summary="List edits", openapi_extra=described_query(EditsQuery))
async def list_edits(
    service: CurrentService, query: Annotated[EditsQuery, Depends(query_of(EditsQuery))]
) -> EditList:
    """Newest first. `after` is the last id of the page before."""
    edits, has_more = await service.catalogue.page(query.search())
    fired = await service.firings.of([edit.id for edit in edits])
    return EditList(
        data=[ListedEdit.listed(edit, fired.get(edit.id)) for edit in edits],
        has_more=has_more,
        last_id=edits[-1].id if edits else None,
    )


@router.get("/edits/{id}", summary="Read one edit", dependencies=[Depends(query_of(NoQuery))])
async def read_edit(service: CurrentService, id: str) -> EditWithHistory:  # noqa: A002
    """The edit with the events that touched it, oldest first."""
    edit = await service.catalogue.view(id)
    fired = await service.firings.of([id])
    events = await service.edit_events(id)
    return EditWithHistory(
        **ListedEdit.listed(edit, fired.get(id)).model_dump(),
        history=[EventView.of(event) for event in events],
    )


@router.post(
    "/edits/{id}/cancel",
    summary="Cancel a pending edit",
    openapi_extra=described(NoBody, required=False),
    dependencies=[Depends(query_of(NoQuery)), Depends(body_of(NoBody, optional=True))],
)
async def cancel_edit(service: CurrentService, id: str) -> EditView:  # noqa: A002
    """Stop an edit that was answered 202 and is not committed yet. Idempotent."""
    return EditView.of(await service.queue.cancel(id))


@router.post(
    "/edits/{id}/scope",
    summary="Change what an edit is for",
    openapi_extra=described(ScopeRequest),
    dependencies=[Depends(query_of(NoQuery))],
)
async def change_scope(
    service: CurrentService,
    caller: CurrentCaller,
    id: str,  # noqa: A002
    body: Annotated[ScopeRequest, Depends(body_of(ScopeRequest))],
) -> EditChanged:
    """Add wordings that it must answer, and questions that it must leave alone; or take some away.

    Verified as a new edit is, and one version. What is so already changes nothing.
    """
    outcome = await service.scoping.change(
        id, body.change(), verify=body.verify, reason=body.reason, caller=caller
    )
    return EditChanged.of(outcome)
