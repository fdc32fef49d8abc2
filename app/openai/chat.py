"""Chat completions: a request as a question, an answer as completion or chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from app.answering import Answer, Question
from app.errors import InvalidField, ServiceError
from app.handlers import error_body
from app.openai.fields import DEFAULT_MAX_TOKENS, DoorRequest, TextFormat
from app.openai.messages import WireMessage, conversation
from app.openai.names import ModelName
from app.openai.reply import Reply, token_logprobs, usage, written_tokens
from app.schemas.base import Some
from app.service import EditingService
from app.streaming import ServerEvent
from editing_core.types import GenerationResult

MAX_MESSAGES = 1000
MAX_TOP_LOGPROBS = 20
_PARAM = "messages"


class ChatRequest(DoorRequest):
    messages: Annotated[Some[WireMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    response_format: TextFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def asked_tokens(self) -> tuple[str, int] | None:
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return None if self.max_tokens is None else ("max_tokens", self.max_tokens)

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives beside each token's log-probability; None: not even that."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidField("top_logprobs needs logprobs true.", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class Chat:
    """One request on its way to its answer, told at once or as a stream (a `Wording`)."""

    def __init__(self, ask: ChatRequest, service: EditingService) -> None:
        name = ModelName.parse(ask.model, service)
        words = service.engine.words
        ask.refuse_tools()
        turns, left_out = conversation(
            ask.messages, param=_PARAM, takes_several=words.takes_several_images
        )
        _, most = ask.asked_tokens or ("", DEFAULT_MAX_TOKENS)
        form = ask.response_format
        self._reply = Reply(
            "chatcmpl",
            name.id,
            words,
            [*ask.ignored, *left_out],
            ask.asked_tokens,
        )
        self.question = Question(
            turns,
            ask.samplings(most, vocabulary=words.vocabulary, top_logprobs=ask.wanted_logprobs),
            name.terms(ask.errata),
            schema=None if form is None else form.schema_text("response_format"),
            id=self._reply.id,
        )
        self._ask = ask

    def body(self, answer: Answer) -> dict[str, Any]:
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": result.text, "refusal": None},
                "logprobs": self._logprobs(result),
                "finish_reason": result.finish_reason,
            }
            for i, result in enumerate(answer.results)
        ]
        return self._object("chat.completion", choices) | {
            "usage": usage(answer),
            "errata": self._reply.errata(answer),
        }

    def noted(self, answer: Answer) -> dict[str, Any]:
        return self._reply.noted(answer)

    def opening(self) -> Iterator[ServerEvent]:
        for i in range(len(self.question.samplings)):
            yield self._chunk(i, {"role": "assistant", "content": ""})

    def delta(self, index: int, text: str) -> Iterator[ServerEvent]:
        yield self._chunk(index, {"content": text})

    def closing(self, answer: Answer) -> Iterator[ServerEvent]:
        errata = self._reply.errata(answer)
        for i, result in enumerate(answer.results):
            ending = {"logprobs": self._logprobs(result), "finish_reason": result.finish_reason}
            yield self._chunk(i, {}, ending, errata=errata)
        if self._ask.has_usage:
            last = self._object("chat.completion.chunk", [])
            yield ServerEvent(last | {"usage": usage(answer), "errata": errata})
        yield ServerEvent("[DONE]")

    def failure(self, error: ServiceError, request_id: str) -> Iterator[ServerEvent]:
        yield ServerEvent(error_body(error, request_id))

    def _chunk(
        self, index: int, delta: dict[str, Any], ending: dict[str, Any] | None = None, **more: Any
    ) -> ServerEvent:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = self._object("chat.completion.chunk", [choice | (ending or {})]) | more
        return ServerEvent(chunk | {"usage": None} if self._ask.has_usage else chunk)

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        reply = self._reply
        return {
            "id": reply.id,
            "object": kind,
            "created": reply.created,
            "model": reply.model,
            "choices": choices,
        }

    def _logprobs(self, result: GenerationResult) -> dict[str, Any] | None:
        if self._ask.wanted_logprobs is None:
            return None
        words = self._reply.words
        return {"content": token_logprobs(words, written_tokens(words, result)), "refusal": None}
