"""The front door: where to go from here."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index() -> JSONResponse:
    return JSONResponse({"name": "errata", "docs": "/docs", "openapi": "/openapi.json"})
