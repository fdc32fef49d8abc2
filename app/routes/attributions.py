"""Ask where an answer comes from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.deps import CurrentService, body_of, described, query_of
from app.schemas.attributions import AttributionRequest, AttributionView
from app.schemas.base import NoQuery
from app.streaming import while_connected

router = APIRouter(tags=["generate"])


@router.post(
    "/attributions",
    summary="Ask which modules make an answer, and where in the picture they look",
    openapi_extra=described(AttributionRequest),
    dependencies=[Depends(query_of(NoQuery))],
)
async def attribute(
    request: Request,
    service: CurrentService,
    ask: Annotated[AttributionRequest, Depends(body_of(AttributionRequest))],
) -> AttributionView:
    """The base model's answer, what every block contributed to one token of it, and each patch's
    influence on that token; as figures, and as a picture."""
    return await while_connected(request, service.attribute(ask))
