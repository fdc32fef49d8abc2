"""What every answer of the OpenAI door says beside its text: ids, usage, and our own fields."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.answering import Answer
from app.schemas.generation import AppliedView, candidate_views
from app.ulid import new_ulid
from app.words import ModelWords
from editing_core.types import GenerationResult, TokenLogprob


@dataclass(frozen=True, slots=True)
class Reply:
    """`asked_tokens`: the field that limits the answer and what it said, where it was given."""

    prefix: str
    model: str
    words: ModelWords
    ignored: Sequence[str]
    asked_tokens: tuple[str, int] | None = None
    ulid: str = field(default_factory=new_ulid)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def id(self) -> str:
        return f"{self.prefix}-{self.ulid}"

    def errata(self, answer: Answer) -> dict[str, Any]:
        """Which version answered, which edits took part, and what was not as asked."""
        told: dict[str, Any] = {
            "version": answer.version,
            "applied": [AppliedView.of(each).model_dump() for each in answer.applied],
            "ignored": list(self.ignored),
            "clamped": self._clamped(answer.results),
            "timings_ms": answer.timings_ms,
        }
        candidates = candidate_views(answer)
        if candidates is not None:
            told["candidates"] = [each.model_dump() for each in candidates]
        return told

    def noted(self, answer: Answer) -> dict[str, Any]:
        """What the log says of it: never the text."""
        edits = [each.edit_id for each in answer.applied]
        tokens = usage(answer)["total_tokens"]
        return {"version": answer.version, "edits": edits, "tokens": tokens}

    def _clamped(self, results: Sequence[GenerationResult]) -> list[str]:
        if self.asked_tokens is None:
            return []
        name, asked = self.asked_tokens
        longest = max(result.prompt_tokens for result in results)
        return [name] if asked > self.words.max_positions - longest else []


def usage(answer: Answer, *, choices: int | None = None) -> dict[str, int]:
    """Tokens of an answer. `choices` is how many results share one prompt, by default all."""
    results = answer.results
    prompt = sum(result.prompt_tokens for result in results[:: choices or len(results)])
    written = sum(result.completion_tokens for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def written_tokens(words: ModelWords, result: GenerationResult) -> list[TokenLogprob]:
    """Of a result's tokens, those that are text: not the one that ended it."""
    return [each for each in result.logprobs if each.token_id not in words.stop_token_ids]


def token_logprobs(words: ModelWords, tokens: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """As chats and responses tell them."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        data = list(words.bytes_of(token))
        return {"token": words.text_of(token), "logprob": logprob, "bytes": data}

    return [
        told(each.token_id, each.logprob)
        | {"top_logprobs": [told(token, logprob) for token, logprob in each.top]}
        for each in tokens
    ]
