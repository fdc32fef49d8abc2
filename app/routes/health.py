"""Probes. Live: the process works. Ready: it can serve. Load: how busy it is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from app.deps import CurrentRuntime, CurrentService, query_of
from app.errors import EngineFailed, EngineRestarting
from app.handlers import error_body, error_response, request_id_of
from app.schemas.base import NoQuery
from app.schemas.load import LoadView

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="Is the process alive?")
async def live(runtime: CurrentRuntime, request: Request) -> JSONResponse:
    if not runtime.is_alive:
        dead = EngineFailed("What runs the model has ended, and stays so.", retry_after_s=30)
        return error_response(dead, request_id_of(request.scope))
    return JSONResponse({"status": "live"})


@router.get("/ready", summary="Can it serve?")
async def ready(runtime: CurrentRuntime, request: Request) -> JSONResponse:
    """200 once it serves; before and after, 503 with the reasons."""
    refusal = runtime.unreadiness()
    if refusal is None:
        history = runtime.service.history
        return JSONResponse({"status": "ready", "version": history.head, "reasons": []})
    status = "restarting" if isinstance(refusal, EngineRestarting) else runtime.state
    body: dict[str, Any] = {"status": status, "reasons": [refusal.message]}
    body |= error_body(refusal, request_id_of(request.scope))
    return JSONResponse(body, 503, {"Retry-After": str(refusal.retry_after_s)})


@router.get("/load", summary="How busy is it?", dependencies=[Depends(query_of(NoQuery))])
async def load(service: CurrentService) -> LoadView:
    """Requests that wait or run, how many may, and how long a new one would wait."""
    return LoadView.of(service.engine.overload_status(), not_finite=service.engine.not_finite)
