"""Ask where an edit will apply, before anybody asks it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from app.deps import CurrentService, body_of, described, query_of
from app.schemas.base import NoQuery
from app.schemas.reach import ReachRequest, ReachView

router = APIRouter(tags=["edits"])


@router.post(
    "/scope/preview",
    summary="Where an edit will apply",
    openapi_extra=described(ReachRequest),
    dependencies=[Depends(query_of(NoQuery))],
)
async def preview(
    service: CurrentService, body: Annotated[ReachRequest, Depends(body_of(ReachRequest))]
) -> ReachView:
    """Questions near an edit's prompt, those that will reach it and those that will not.

    By words alone, as if they were asked about the edit's own picture. Nothing is written.
    """
    return ReachView.of(await service.preview.look(body.asked()))
