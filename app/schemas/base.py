"""What wire models share. Requests are strict: no unknown field, no coercion between types."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from editing_core.identity import MAX_MARKS, is_tangled

INT64 = 2**63 - 1024
"""The largest of 64 bits that stays the same where JSON is read as floats, as in our own schema."""


def not_blank(text: str) -> str:
    """The text. Raises `ValueError` where nothing is in it."""
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def untangled(text: str) -> str:
    """The text. Raises `ValueError` where marks are heaped on one letter.

    Everything that people write passes. Whatever orders, compares or draws it later is spared.
    """
    if is_tangled(text):
        raise ValueError(f"must not have more than {MAX_MARKS} combining marks in a row")
    return text


Text = Annotated[str, AfterValidator(untangled)]
Prompt = Annotated[
    Text, AfterValidator(not_blank), WithJsonSchema({"type": "string", "pattern": r"\S"})
]
Item = TypeVar("Item")
Some = Annotated[list[Item], Field(fail_fast=True)]
"""A list that may be long. It ends at its first item that is wrong: an error for each of fifty
thousand costs half a second of the event loop."""

Reason = Annotated[Text, Field(max_length=2000)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query strings: texts that are converted, but no unknown name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    pass


class NoBody(Request):
    """A request that says everything by its path: no body, or `{}`."""
