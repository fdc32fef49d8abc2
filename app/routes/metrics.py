"""What the server counts of itself, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from app.deps import CurrentRuntime, query_of
from app.metrics import CONTENT_TYPE
from app.schemas.base import NoQuery

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    summary="Counters and timings",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(query_of(NoQuery))],
)
async def metrics(runtime: CurrentRuntime) -> Response:
    """In the text format of Prometheus. No key is asked for: it names no edit and no text."""
    return Response(runtime.metrics.text(), media_type=CONTENT_TYPE)
