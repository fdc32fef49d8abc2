"""The door for stock clients: the routes of OpenAI's API that a model like this one can serve."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.answering import Answer
from app.deps import CurrentService, body_of, described, query_of
from app.openai.chat import Chat, ChatRequest
from app.openai.completions import Completion, CompletionRequest
from app.openai.fields import DoorRequest
from app.openai.names import ModelName, listed
from app.openai.responses import ResponsesRequest, ResponseStory
from app.schemas.base import NoQuery
from app.streaming import Emit, EventStream, Wording, while_connected

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
    return await _told(
        request, ask, chat, lambda emit: service.answering.answer(chat.question, on_tokens=emit)
    )


@router.post(
    "/responses",
    responses=_STREAMED,
    summary="Answer, by the newer interface",
    openapi_extra=described(ResponsesRequest),
)
async def responses(
    request: Request,
    service: CurrentService,
    ask: Annotated[ResponsesRequest, Depends(body_of(ResponsesRequest))],
) -> Response:
    """As OpenAI's, without state: nothing is kept between requests."""
    story = ResponseStory(ask, service)
    return await _told(
        request, ask, story, lambda emit: service.answering.answer(story.question, on_tokens=emit)
    )


@router.post(
    "/completions",
    responses=_STREAMED,
    summary="Continue a text as it stands",
    openapi_extra=described(CompletionRequest),
)
async def completions(
    request: Request,
    service: CurrentService,
    ask: Annotated[CompletionRequest, Depends(body_of(CompletionRequest))],
) -> Response:
    """The base model, without chat template and picture; with `echo`, log-likelihoods."""
    story = await Completion.read(ask, service)
    answering = service.answering
    return await _told(
        request, ask, story, lambda emit: answering.continue_texts(story.question, on_tokens=emit)
    )


class _Telling(Wording[Answer], Protocol):
    """How an answer is told: as a stream, or at once."""

    def body(self, answer: Answer) -> dict[str, Any]: ...


async def _told(
    request: Request,
    ask: DoorRequest,
    telling: _Telling,
    story: Callable[[Emit | None], Coroutine[Any, Any, Answer]],
) -> Response:
    if ask.stream:
        return await EventStream.begin(request, story, telling)
    answer = await while_connected(request, story(None))
    request.state.log.update(telling.noted(answer))
    return JSONResponse(telling.body(answer))
