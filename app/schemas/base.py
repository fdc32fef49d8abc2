"""What wire models share. Requests are strict: no unknown field, no coercion between types."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

INT64 = 2**63 - 1


def not_blank(text: str) -> str:
    """The text. Raises `ValueError` where nothing is in it."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Prompt = Annotated[str, AfterValidator(not_blank)]
Reason = Annotated[str, Field(max_length=2000)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query strings: texts that are converted, but no unknown name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    pass
