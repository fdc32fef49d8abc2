"""Every error as the one shape, whoever raised it: services, the library, the framework."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Scope

from app.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    RouteNotFound,
    ServiceError,
    Unprocessable,
)
from app.schemas import ErrorBody, ErrorDetail
from editing_core.errors import GenerationCancelled, RequestError

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""Logged when nobody is left to answer; never seen by a client."""


def request_id_of(scope: Scope) -> str:
    """The id that the outermost middleware gave this request."""
    return str(scope.get("state", {}).get("request_id", ""))


def error_response(error: ServiceError, request_id: str) -> JSONResponse:
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse(error_body(error, request_id), status_code=error.status, headers=headers)


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    detail = ErrorDetail(
        message=error.message,
        type=error.kind,
        param=error.param,
        code=error.code,
        hint=error.hint,
        retryable=error.retryable,
        request_id=request_id,
        **error.details,
    )
    return ErrorBody(error=detail).model_dump()


def as_service_error(error: Exception) -> ServiceError:
    """What a client is told. Whatever nobody foresaw is logged in full and told in general."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestError):
        return _of_library(error)
    if isinstance(error, HTTPException):
        return _of_framework(error)
    logger.error("unforeseen error", exc_info=error)
    return InternalError("Something went wrong in the server.")


def install_handlers(app: FastAPI) -> None:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        response = error_response(as_service_error(error), request_id_of(request.scope))
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)  # Allow, of a 405
        return response

    for kind in (ServiceError, RequestError, HTTPException, GenerationCancelled):
        app.add_exception_handler(kind, answer)


def _of_library(error: RequestError) -> ServiceError:
    told = Unprocessable(error.message, param=error.param, hint=error.hint)
    told.code = error.code
    return told


def _of_framework(error: HTTPException) -> ServiceError:
    if error.status_code == 404:
        return RouteNotFound("There is nothing at this path.")
    if error.status_code == 405:
        return MethodNotAllowed("This path does not know that method.")
    told = BadRequest(str(error.detail))
    told.status = error.status_code
    return told
