"""Every error as the one shape, whoever raised it: services, the library, the framework."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Scope

from app import errors
from app.errors import BadRequest, MethodNotAllowed, RouteNotFound, ServiceError
from app.schemas.errors import ErrorBody, ErrorDetail
from editing_core.errors import GenerationCancelled, NotFinite, RequestError

CLIENT_GONE = 499
"""Logged when nobody is left to answer; never seen by a client."""

OPENAI_PREFIX = "/v1/"
OPENAI_CODES = {"context_too_long": "context_length_exceeded"}


def request_id_of(scope: Scope) -> str:
    """The id that the outermost middleware gave this request."""
    return str(scope.get("state", {}).get("request_id", ""))


def error_response(error: ServiceError, request_id: str) -> JSONResponse:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse(error_body(error, request_id), status_code=error.status, headers=headers)


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    return ErrorBody(error=ErrorDetail.of(error, request_id)).model_dump()


def as_service_error(error: Exception) -> ServiceError:
    """What a client is told, whoever raised it."""
    if isinstance(error, HTTPException):
        return _of_framework(error)
    return errors.as_service_error(error)


def as_openai_says(error: ServiceError) -> ServiceError:
    """The same error in the words that stock clients know: they have 400 where we have 422."""
    if error.status == 422:
        error.status = 400
        error.code = OPENAI_CODES.get(error.code, error.code)
    return error


def install_handlers(app: FastAPI) -> None:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        told = as_service_error(error)
        if request.url.path.startswith(OPENAI_PREFIX):
            told = as_openai_says(told)
        response = error_response(told, request_id_of(request.scope))
        if isinstance(error, HTTPException) and error.status_code == 405:
            response.headers["Allow"] = ", ".join(_methods_of(app, request.scope))
        elif isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response

    for kind in (ServiceError, RequestError, NotFinite, HTTPException, GenerationCancelled):
        app.add_exception_handler(kind, answer)


def _methods_of(app: FastAPI, scope: Scope) -> list[str]:
    """What a path knows: the methods of each route that has it, not only of the first.

    A path that is somebody's own, as `/edits/batch`, is no example of another's pattern.
    """
    own = app.openapi()["paths"].get(scope["path"])

    def knows(method: str) -> bool:
        if own is not None:
            return method.lower() in own
        scoped = {**scope, "method": method}
        return any(route.matches(scoped)[0] is Match.FULL for route in app.routes)

    known = list(filter(knows, ("DELETE", "GET", "PATCH", "POST", "PUT")))
    return [*known, "HEAD"] if "GET" in known else known


def _of_framework(error: HTTPException) -> ServiceError:
    if error.status_code == 404:
        return RouteNotFound("There is nothing at this path.")
    if error.status_code == 405:
        return MethodNotAllowed("This path does not know that method.")
    told = BadRequest(str(error.detail))
    told.status = error.status_code
    return told
