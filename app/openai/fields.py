"""What requests of the OpenAI door share: which fields are honoured, and what becomes of others.

Stock clients send more than any one server honours. A field that changes nothing here is ignored,
and named in the answer; one without which the answer would be wrong is refused.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.errors import InvalidField, UnsupportedParameter
from app.schemas.base import INT64, Request, Text
from editing_core.types import Sampling

DEFAULT_MAX_TOKENS = 1024
MAX_CHOICES = 8
_MAX_NAMED = 32
_MAX_NAME = 100
_LEAST_TOP_P = 1e-6

SILENT = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Fields that say nothing about the answer. They are not named either."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "modalities": (["text"],),
    "tool_choice": ("auto", "none"),
    "truncation": ("disabled",),
}
"""Values, apart from empty ones, that ask for what happens anyway."""


def _texts(value: Any) -> Any:
    """A text as a list; empty ones are no stop strings."""
    texts = [value] if isinstance(value, str) else value
    return [text for text in texts if text != ""] if isinstance(texts, list) else texts


class Lenient(BaseModel):
    """A part of a request: types are strict, fields that are not known here are kept."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class ErrataFields(Request):
    """Our own fields, in an object of their own. Here a field that is not known is refused."""

    edits: Literal["on", "off"] | None = None
    at_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    min_version: Annotated[int, Field(ge=0, le=INT64)] | None = None
    explain: bool = False


class StreamOptions(Lenient):
    include_usage: bool | None = None


class DoorRequest(Lenient):
    """Null stands for an absent field, as clients have it."""

    model: Annotated[Text, Field(min_length=1, max_length=512)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-INT64 - 1, le=INT64)] | None = None
    stop: (
        Annotated[
            Annotated[list[Text], Field(max_length=16)],
            BeforeValidator(_texts, json_schema_input_type=str | list[str]),
        ]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
                Annotated[float, Field(ge=-100, le=100)],
            ],
            Field(max_length=1024),
        ]
        | None
    ) = None
    errata: ErrataFields | None = None

    @property
    def ignored(self) -> list[str]:
        """Names of fields that ask for something and get nothing."""
        return [
            name[:_MAX_NAME]
            for name, value in (self.model_extra or {}).items()
            if _asks(name, value)
        ][:_MAX_NAMED]

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with what was used."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def refuse_tools(self) -> None:
        """An answer that had to be a call of a tool cannot be given."""
        for name in ("tool_choice", "function_call"):
            choice = (self.model_extra or {}).get(name)
            if choice not in (None, "auto", "none"):
                raise UnsupportedParameter(
                    f"{name} asks for a call of a tool, and this server calls none.",
                    param=name,
                    hint=f'Leave {name} out, or send "auto": tools are then ignored.',
                )

    def samplings(
        self, max_tokens: int, *, vocabulary: int, top_logprobs: int | None
    ) -> tuple[Sampling, ...]:
        """One for each answer that is wanted; each has a seed of its own."""
        bias = tuple((int(token), amount) for token, amount in (self.logit_bias or {}).items())
        if any(token >= vocabulary for token, _ in bias):
            raise InvalidField(
                f"logit_bias: the model has {vocabulary} tokens, counted from 0.",
                param="logit_bias",
            )
        return tuple(
            Sampling(
                max_new_tokens=max_tokens,
                temperature=self.temperature or 0.0,
                top_p=max(_LEAST_TOP_P, 1.0 if self.top_p is None else self.top_p),
                seed=None if self.seed is None else self.seed + i,
                stop=tuple(self.stop or ()),
                min_p=self.min_p or 0.0,
                presence_penalty=self.presence_penalty or 0.0,
                frequency_penalty=self.frequency_penalty or 0.0,
                logit_bias=bias,
                top_logprobs=top_logprobs,
            )
            for i in range(self.n or 1)
        )


class JsonSchema(Lenient):
    definition: dict[str, Any] | None = Field(None, alias="schema")


class TextFormat(JsonSchema):
    """What an answer must look like. Responses have the schema here, chats in `json_schema`."""

    type: Text
    json_schema: JsonSchema | None = None

    def schema_text(self, param: str) -> str | None:
        """The JSON schema of the answer, as JSON; None where any text will do."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.type != "json_schema":
            raise UnsupportedParameter(
                f"{param}: an answer cannot be of type {self.type!r}.",
                param=param,
                hint="Use text, json_object or json_schema.",
            )
        definition = (self.json_schema or self).definition
        if definition is None:
            raise InvalidField(f"{param}: there is no schema.", param=param)
        return json.dumps(definition)


def _asks(name: str, value: Any) -> bool:
    is_empty = value is None or value is False or value in ("", [], {})
    return not (is_empty or name in SILENT or value in _NEUTRAL.get(name, ()))
