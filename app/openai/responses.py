"""Responses: a request as a question, an answer as response or as the events of one.

Nothing is kept between requests, so what came before is sent along in `input`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from app.answering import Answer, Question
from app.errors import InvalidField, ServiceError, UnsupportedParameter
from app.openai.chat import MAX_MESSAGES, MAX_TOP_LOGPROBS
from app.openai.events import Events
from app.openai.fields import DEFAULT_MAX_TOKENS, DoorRequest, Lenient, TextFormat
from app.openai.messages import Part, WireMessage, conversation
from app.openai.names import ModelName
from app.openai.reply import Reply, token_logprobs, usage, written_tokens
from app.schemas.base import Some, Text
from app.service import EditingService
from app.streaming import ServerEvent

_PARAM = "input"
_LOGPROBS = "message.output_text.logprobs"
_STATEFUL = ("background", "conversation", "previous_response_id", "prompt")
"""Fields that refer to what a server keeps, and this one does not."""


class InputItem(Lenient):
    type: Text | None = None
    role: Text | None = None
    content: Text | Some[Part] | None = None
    output: Text | Some[Part] | None = None

    def message(self) -> WireMessage | None:
        """The item as a message; None for what says nothing to the model."""
        if self.type in (None, "message") and self.role is not None:
            return WireMessage(role=self.role, content=self.content)
        if self.type == "function_call_output":
            return WireMessage(role="tool", content=self.output)
        if self.type in ("reasoning", "function_call"):
            return None
        raise UnsupportedParameter(
            f"{_PARAM}: an item of type {self.type!r} cannot be read here.", param=_PARAM
        )


class TextOptions(Lenient):
    format: TextFormat | None = None


class ResponsesRequest(DoorRequest):
    input: Text | Annotated[Some[InputItem], Field(min_length=1, max_length=MAX_MESSAGES)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    text: TextOptions | None = None
    include: Some[Text] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def ignored(self) -> list[str]:
        more = ["include"] if set(self.include or ()) - {_LOGPROBS} else []
        return super().ignored + more

    @property
    def wanted_logprobs(self) -> int | None:
        """How many alternatives beside each token's log-probability; None: not even that."""
        return (self.top_logprobs or 0) if _LOGPROBS in (self.include or ()) else None

    @property
    def messages(self) -> list[WireMessage]:
        messages = []
        if self.instructions:
            messages.append(WireMessage(role="system", content=self.instructions))
        if isinstance(self.input, str):
            messages.append(WireMessage(role="user", content=self.input))
        else:
            messages += [found for item in self.input if (found := item.message()) is not None]
        return messages

    def refuse_state(self) -> None:
        for name in _STATEFUL:
            if (self.model_extra or {}).get(name):
                raise UnsupportedParameter(
                    f"{name} is not honoured: responses are not kept.",
                    param=name,
                    hint="Send the whole conversation in input.",
                )


class ResponseStory:
    """One request on its way to its answer, told at once or as a stream (a `Wording`)."""

    def __init__(self, ask: ResponsesRequest, service: EditingService) -> None:
        name = ModelName.parse(ask.model, service)
        words = service.engine.words
        ask.refuse_tools()
        ask.refuse_state()
        if ask.n not in (None, 1):
            raise InvalidField("n: a response is one answer.", param="n")
        turns, left_out = conversation(
            ask.messages, param=_PARAM, takes_several=words.takes_several_images
        )
        form = None if ask.text is None else ask.text.format
        most = ask.max_output_tokens
        self._ask = ask
        self._reply = Reply(
            "resp",
            name.id,
            words,
            [*ask.ignored, *left_out],
            None if most is None else ("max_output_tokens", most),
        )
        self.question = Question(
            turns,
            ask.samplings(
                ask.max_output_tokens or DEFAULT_MAX_TOKENS,
                vocabulary=words.vocabulary,
                top_logprobs=ask.wanted_logprobs,
            ),
            name.terms(ask.errata),
            schema=None if form is None else form.schema_text("text"),
            id=self._reply.id,
        )
        self._events = Events(f"msg-{self._reply.ulid}")

    def body(self, answer: Answer) -> dict[str, Any]:
        return self._object(answer)

    def noted(self, answer: Answer) -> dict[str, Any]:
        return self._reply.noted(answer)

    def opening(self) -> Iterator[ServerEvent]:
        return self._events.opening(self._object(None))

    def delta(self, _index: int, text: str) -> Iterator[ServerEvent]:
        yield self._events.delta(text)

    def closing(self, answer: Answer) -> Iterator[ServerEvent]:
        return self._events.closing(self._object(answer))

    def failure(self, error: ServiceError, request_id: str) -> Iterator[ServerEvent]:
        yield self._events.failure(error.fields(request_id))

    def _object(self, answer: Answer | None) -> dict[str, Any]:
        """The response as it stands: None is before its first token."""
        ask, reply = self._ask, self._reply
        told: dict[str, Any] = {
            "id": reply.id,
            "object": "response",
            "created_at": reply.created,
            "model": reply.model,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": ask.instructions,
            "max_output_tokens": ask.max_output_tokens,
            "output": [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "store": False,
            "temperature": ask.temperature or 0.0,
            "text": {"format": self._format()},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if ask.top_p is None else ask.top_p,
            "truncation": "disabled",
            "usage": None,
        }
        return told if answer is None else told | self._outcome(answer)

    def _outcome(self, answer: Answer) -> dict[str, Any]:
        (result,) = answer.results
        is_whole = result.finish_reason == "stop"
        status = "completed" if is_whole else "incomplete"
        words, used = self._reply.words, usage(answer)
        logprobs = token_logprobs(words, written_tokens(words, result))
        text = {"type": "output_text", "text": result.text, "annotations": [], "logprobs": logprobs}
        message = {
            "id": self._events.item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [text],
        }
        return {
            "status": status,
            "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
            "output": [message],
            "usage": {
                "input_tokens": used["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": used["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used["total_tokens"],
            },
            "errata": self._reply.errata(answer),
        }

    def _format(self) -> dict[str, Any]:
        form = None if self._ask.text is None else self._ask.text.format
        return (
            {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
        )
