"""Ask the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.deps import CurrentService, body_of, described, query_of
from app.errors import ServiceError
from app.handlers import error_body
from app.schemas.base import NoQuery
from app.schemas.generation import GenerateRequest, GenerateView
from app.streaming import EventStream, ServerEvent, while_connected

router = APIRouter(tags=["generate"])


@router.post(
    "/generate",
    response_model=GenerateView,
    responses={200: {"content": {"text/event-stream": {}}}},
    summary="Ask a question about a picture",
    openapi_extra=described(GenerateRequest),
    dependencies=[Depends(query_of(NoQuery))],
)
async def generate(
    request: Request,
    service: CurrentService,
    ask: Annotated[GenerateRequest, Depends(body_of(GenerateRequest))],
) -> Response:
    """The model's answer, and which edits took part in it.

    With `stream`, server-sent events: `{"delta": "..."}` as text comes, then all other fields,
    then `[DONE]`.
    """
    if ask.stream:
        return await EventStream.begin(
            request, lambda emit: service.generate(ask, on_tokens=emit), _Wording()
        )
    answer = await while_connected(request, service.generate(ask))
    request.state.log.update(answer.noted())
    return JSONResponse(answer.wire())


class _Wording:
    """Deltas, then all other fields, then `[DONE]`."""

    def opening(self) -> tuple[ServerEvent, ...]:
        return ()

    def delta(self, _index: int, text: str) -> Iterator[ServerEvent]:
        yield ServerEvent({"delta": text})

    def closing(self, view: GenerateView) -> Iterator[ServerEvent]:
        tail = view.wire()
        del tail["text"]
        yield ServerEvent(tail)
        yield ServerEvent("[DONE]")

    def failure(self, error: ServiceError, request_id: str) -> Iterator[ServerEvent]:
        yield ServerEvent(error_body(error, request_id))

    def noted(self, view: GenerateView) -> dict[str, Any]:
        return view.noted()
