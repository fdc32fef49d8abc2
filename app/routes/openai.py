"""The door for stock clients: the routes of OpenAI's API that a model like this one can serve."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.deps import CurrentService, body_of, described, query_of
from app.openai.chat import Chat, ChatRequest
from app.openai.names import ModelName, listed
from app.schemas.base import NoQuery
from app.streaming import EventStream, while_connected

router = APIRouter(prefix="/v1", tags=["openai"], dependencies=[Depends(query_of(NoQuery))])

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}


@router.get("/models", summary="List the names of the model")
async def list_models(service: CurrentService) -> dict[str, Any]:
    return {"object": "list", "data": [name.view(service) for name in listed(service)]}


@router.get("/models/{id:path}", summary="Look one name up")
async def read_model(service: CurrentService, id: str) -> dict[str, Any]:  # noqa: A002
    return ModelName.parse(id, service).view(service)


@router.post(
    "/chat/completions",
    responses=_STREAMED,
    summary="Answer a conversation",
    openapi_extra=described(ChatRequest),
)
async def chat_completions(
    request: Request,
    service: CurrentService,
    ask: Annotated[ChatRequest, Depends(body_of(ChatRequest))],
) -> Response:
    """As OpenAI's, with `errata` in request and answer."""
    chat = Chat(ask, service)
    answering = service.answering
    if ask.stream:
        return await EventStream.begin(
            request, lambda emit: answering.answer(chat.question, on_tokens=emit), chat
        )
    answer = await while_connected(request, answering.answer(chat.question))
    request.state.log.update(chat.noted(answer))
    return JSONResponse(chat.body(answer))
