"""Say what is wrong with an answer; look through what was said, and close it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from app.deps import CurrentCaller, CurrentService, body_of, described, described_query, query_of
from app.schemas.base import NoQuery
from app.schemas.feedback import (
    FeedbackCreate,
    FeedbackImport,
    FeedbackList,
    FeedbackMade,
    FeedbackQuery,
    FeedbackResolve,
    FeedbackTaken,
    FeedbackView,
)

router = APIRouter(prefix="/feedback", tags=["feedback"])


@router.post(
    "",
    status_code=201,
    summary="Report an answer",
    openapi_extra=described(FeedbackCreate),
    dependencies=[Depends(query_of(NoQuery))],
)
async def report(
    service: CurrentService,
    caller: CurrentCaller,
    body: Annotated[FeedbackCreate, Depends(body_of(FeedbackCreate))],
) -> FeedbackMade:
    """`answer_id` is the `id` of an answer that was given a short while ago."""
    made = await service.feedback.report(body.answer_id, body.complaint(), caller=caller)
    return FeedbackMade(id=made.id, status=made.status)


@router.post(
    "/import",
    status_code=201,
    responses={200: {"model": FeedbackTaken, "description": "It was imported before."}},
    summary="Take in a report from elsewhere",
    openapi_extra=described(FeedbackImport),
    dependencies=[Depends(query_of(NoQuery))],
)
async def take_in(
    service: CurrentService,
    caller: CurrentCaller,
    response: Response,
    body: Annotated[FeedbackImport, Depends(body_of(FeedbackImport))],
) -> FeedbackTaken:
    """One report for each `source` and `source_id`: sent again, it is answered 200 as it stands."""
    made, is_known = await service.feedback.take_in(body.foreign(), body.complaint(), caller=caller)
    if is_known:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return FeedbackTaken(id=made.id, status=made.status, known=is_known)


@router.get("", summary="List what was reported", openapi_extra=described_query(FeedbackQuery))
async def list_feedback(
    service: CurrentService, query: Annotated[FeedbackQuery, Depends(query_of(FeedbackQuery))]
) -> FeedbackList:
    """Newest first. `after` is the last id of the page before."""
    status = None if query.status == "all" else query.status
    reports, has_more = await service.feedback.page(
        status=status, after=query.after, limit=query.limit
    )
    return FeedbackList(
        data=[FeedbackView.of(each) for each in reports],
        has_more=has_more,
        last_id=reports[-1].id if reports else None,
    )


@router.get("/{id}", summary="Read one report", dependencies=[Depends(query_of(NoQuery))])
async def read_feedback(service: CurrentService, id: str) -> FeedbackView:  # noqa: A002
    """As it is listed."""
    return FeedbackView.of(await service.feedback.one(id))


@router.get(
    "/{id}/image",
    summary="The picture of a reported answer",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}},
    dependencies=[Depends(query_of(NoQuery))],
)
async def read_picture(service: CurrentService, id: str) -> Response:  # noqa: A002
    """As PNG. Gone once the report is closed: an edit keeps its own."""
    return Response(await service.feedback.picture(id), media_type="image/png")


@router.get(
    "/{id}/thumbnail",
    summary="The picture of a reported answer, small",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}},
    dependencies=[Depends(query_of(NoQuery))],
)
async def read_thumbnail(service: CurrentService, id: str) -> Response:  # noqa: A002
    """At most 192 pixels wide and high, as WebP. Gone once the report is closed."""
    return Response(await service.feedback.thumbnail(id), media_type="image/webp")


@router.post(
    "/{id}/resolve",
    summary="Close a report",
    openapi_extra=described(FeedbackResolve),
    dependencies=[Depends(query_of(NoQuery))],
)
async def resolve(
    service: CurrentService,
    caller: CurrentCaller,
    id: str,  # noqa: A002
    body: Annotated[FeedbackResolve, Depends(body_of(FeedbackResolve))],
) -> FeedbackView:
    """By the edit or the change of scope that mends it, or by dismissal. Idempotent."""
    return FeedbackView.of(await service.feedback.close(id, body.closing(), caller=caller))
