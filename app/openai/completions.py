"""Text completions: texts that are continued as they stand, and judged token by token.

Without a chat template and without a picture, so no edit takes part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field

from app.answering import Answer, TextQuestion
from app.engine import InferenceEngine
from app.errors import InvalidField, ServiceError, UnsupportedParameter
from app.handlers import error_body
from app.openai.fields import DoorRequest
from app.openai.names import ModelName
from app.openai.reply import Reply, usage, written_tokens
from app.schemas.base import Some, Text
from app.service import EditingService
from app.streaming import ServerEvent
from app.words import ModelWords
from editing_core.types import GenerationResult, TokenLogprob

DEFAULT_TOKENS = 16
MAX_PROMPTS = 64
MAX_LOGPROBS = 5

TokenIds = Annotated[Some[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Prompts = Text | Some[Text] | TokenIds | Some[TokenIds]


class CompletionRequest(DoorRequest):
    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    suffix: Text | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        given: Any = self.prompt
        is_one = isinstance(given, str) or (given and isinstance(given[0], int))
        return [given] if is_one else list(given)


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One prompt: as tokens, and as the text that is said again when it is echoed."""

    ids: tuple[int, ...]
    text: str


class Completion:
    """One request on its way to its answer, told at once or as a stream (a `Wording`)."""

    def __init__(
        self, ask: CompletionRequest, prompts: Sequence[_Prompt], service: EditingService
    ) -> None:
        name = ModelName.parse(ask.model, service)
        words = service.engine.words
        most = DEFAULT_TOKENS if ask.max_tokens is None else ask.max_tokens
        self.question = TextQuestion(
            tuple(prompt.ids for prompt in prompts),
            ask.samplings(most, vocabulary=words.vocabulary, top_logprobs=ask.logprobs),
            name.terms(ask.errata),
            top_logprobs=ask.logprobs if ask.echo else None,
        )
        self._ask = ask
        self._prompts = prompts
        asked = None if ask.max_tokens is None else ("max_tokens", ask.max_tokens)
        self._reply = Reply("cmpl", name.id, words, ask.ignored, asked)

    @classmethod
    async def read(cls, ask: CompletionRequest, service: EditingService) -> Self:
        """Raises where there is nothing to go on from."""
        if ask.suffix:
            raise UnsupportedParameter("suffix: a text is only continued.", param="suffix")
        if not 1 <= len(ask.prompts) <= MAX_PROMPTS:
            raise InvalidField(f"prompt: 1 to {MAX_PROMPTS} texts, please.", param="prompt")
        prompts = [await _tokenised(prompt, service.engine) for prompt in ask.prompts]
        return cls(ask, prompts, service)

    def body(self, answer: Answer) -> dict[str, Any]:
        choices = [
            self._choice(i, self._echoed(i) + result.text, result, answer)
            for i, result in enumerate(answer.results)
        ]
        return self._object(choices) | {
            "usage": usage(answer, choices=len(self.question.samplings)),
            "errata": self._reply.errata(answer),
        }

    def noted(self, answer: Answer) -> dict[str, Any]:
        return self._reply.noted(answer)

    def opening(self) -> Iterator[ServerEvent]:
        for i in range(len(self._prompts) * len(self.question.samplings)):
            if text := self._echoed(i):
                yield self._chunk(_begun(i, text))

    def delta(self, index: int, text: str) -> Iterator[ServerEvent]:
        yield self._chunk(_begun(index, text))

    def closing(self, answer: Answer) -> Iterator[ServerEvent]:
        errata = self._reply.errata(answer)
        for i, result in enumerate(answer.results):
            yield self._chunk(self._choice(i, "", result, answer), errata=errata)
        if self._ask.has_usage:
            used = usage(answer, choices=len(self.question.samplings))
            yield ServerEvent(self._object([]) | {"usage": used, "errata": errata})
        yield ServerEvent("[DONE]")

    def failure(self, error: ServiceError, request_id: str) -> Iterator[ServerEvent]:
        yield ServerEvent(error_body(error, request_id))

    def _chunk(self, choice: dict[str, Any], **more: Any) -> ServerEvent:
        chunk = self._object([choice]) | more
        return ServerEvent(chunk | {"usage": None} if self._ask.has_usage else chunk)

    def _object(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        reply = self._reply
        return {
            "id": reply.id,
            "object": "text_completion",
            "created": reply.created,
            "model": reply.model,
            "choices": choices,
        }

    def _choice(
        self, i: int, text: str, result: GenerationResult, answer: Answer
    ) -> dict[str, Any]:
        return {
            "index": i,
            "text": text,
            "logprobs": self._logprobs(i, result, answer),
            "finish_reason": result.finish_reason,
        }

    def _echoed(self, i: int) -> str:
        return self._prompt(i).text if self._ask.echo else ""

    def _prompt(self, i: int) -> _Prompt:
        return self._prompts[i // len(self.question.samplings)]

    def _logprobs(self, i: int, result: GenerationResult, answer: Answer) -> dict[str, Any] | None:
        if self._ask.logprobs is None:
            return None
        words = self._reply.words
        judged: list[TokenLogprob | None] = []
        tokens: list[int] = []
        if self._ask.echo:
            # Nothing comes before the first token, so nothing can be said of it.
            judged = [None, *answer.judged[i // len(self.question.samplings)]]
            tokens = list(self._prompt(i).ids)
        written = written_tokens(words, result)
        texts = [words.text_of(token) for token in (*tokens, *(t.token_id for t in written))]
        judged += written
        offsets, at = [], 0
        for text in texts:
            offsets.append(at)
            at += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [None if each is None else each.logprob for each in judged],
            "top_logprobs": [None if each is None else _by_text(words, each) for each in judged],
            "text_offset": offsets,
        }


def _by_text(words: ModelWords, judged: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens, and the one that is there. Of two that read alike, the likelier."""
    pairs = [*judged.top, (judged.token_id, judged.logprob)]
    pairs.sort(key=lambda pair: pair[1])
    return {words.text_of(token): logprob for token, logprob in pairs}


def _begun(index: int, text: str) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": None}


async def _tokenised(prompt: str | list[int], engine: InferenceEngine) -> _Prompt:
    words = engine.words
    if isinstance(prompt, str):
        found = _Prompt(await engine.text_ids(prompt), prompt)
    elif any(token >= words.vocabulary or token == words.image_token_id for token in prompt):
        raise InvalidField(
            f"prompt: tokens are below {words.vocabulary}, and none stands for a picture.",
            param="prompt",
        )
    else:
        grammar = await asyncio.to_thread(lambda: words.grammar)
        text = b"".join(map(grammar.bytes_of, prompt)).decode(errors="replace")
        found = _Prompt(tuple(prompt), text)
    if not found.ids:
        raise InvalidField("prompt: there is no text to continue.", param="prompt")
    return found
