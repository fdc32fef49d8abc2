"""The pages that browsers are shown: the console at `/`, the API's reference at `/docs`.

Their files lie in `app/console` and are served as they are. Nothing of them comes from elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

router = APIRouter()

CONSOLE = Path(__file__).parents[1] / "console"

_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept"}


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    """The console for browsers, which ask for HTML by name; JSON for everybody else."""
    if "text/html" in request.headers.get("accept", "").lower():
        return FileResponse(CONSOLE / "index.html", headers=_HEADERS)
    return JSONResponse(
        {"name": "errata", "docs": "/docs", "openapi": "/openapi.json"}, headers=_HEADERS
    )


@router.get("/docs", include_in_schema=False)
async def reference() -> Response:
    return FileResponse(CONSOLE / "docs.html", headers={"Cache-Control": "no-cache"})


class ConsoleFiles(StaticFiles):
    """The files of the console. A browser asks each time whether they are still the same, so that
    a new release is seen at once."""

    def __init__(self) -> None:
        super().__init__(directory=CONSOLE)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response
