"""Answers that come bit by bit: server-sent events of one answer, and lines of a batch.

What is read is the same for both clients; only how lines arrive differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from .drafts import Draft
from .errors import NoAnswer, NotErrata, refusal
from .models import Answer, Made
from .requests import Call

MOST_ITEMS = 100
MOST_CHARACTERS = 12 * 1024 * 1024
"""Of the pictures in one batch: a request may have 16 MiB."""

_BROKEN = "the answer broke off before its end"


def streamed(call: Call[Answer]) -> Call[Answer]:
    """The same question, answered bit by bit."""
    return replace(call, body={**(call.body or {}), "stream": True})


@dataclass(slots=True)
class Heard:
    """What a stream said so far. `answer` is there once it has ended well."""

    _text: list[str] = field(default_factory=list)
    _tail: dict[str, Any] | None = None
    answer: Answer | None = None

    def hear(self, line: str) -> str | None:
        """The text that this line adds, if any. Raises `Refused` and `NotErrata`."""
        if not line.startswith("data: "):
            return None
        said = line.removeprefix("data: ")
        if said == "[DONE]":
            self.answer = self._whole()
            return None
        event = _object(said)
        if "error" in event:
            raise refusal(event["error"], status=503 if event["error"].get("retryable") else 500)
        if "delta" in event:
            self._text.append(str(event["delta"]))
            return self._text[-1]
        self._tail = event
        return None

    def end(self) -> Answer:
        """The answer. Raises `NoAnswer` where it broke off."""
        if self.answer is None:
            raise NoAnswer(_BROKEN, sent=True)
        return self.answer

    def _whole(self) -> Answer:
        try:
            return Answer.model_validate((self._tail or {}) | {"text": "".join(self._text)})
        except ValidationError as error:
            raise NotErrata("the stream ended without an answer", status=200) from error


@dataclass(frozen=True, slots=True)
class Batch:
    """Drafts that go into one request. `first` is the place of the first one among all."""

    first: int
    items: Sequence[dict[str, Any]]

    def call(self) -> Call[None]:
        """It can be repeated, because each item has a key."""
        return Call("POST", "/edits/batch", lambda _: None, body={"edits": self.items})

    def hear(self, line: str) -> Made | None:
        """The item that this line tells of; None at the end. Raises `Refused` and `NotErrata`."""
        said = _object(line)
        if said.get("done"):
            return None
        try:
            made = Made.model_validate(said)
        except ValidationError as error:
            raise NotErrata("a line of the batch tells of no edit", status=200) from error
        return made.model_copy(update={"index": self.first + made.index})


def batches(drafts: Iterable[Draft]) -> Iterator[Batch]:
    """The drafts in requests that a server takes. No more than one is held in memory."""
    items: list[dict[str, Any]] = []
    first = size = 0
    for draft in drafts:
        item = draft.body() | {"idempotency_key": draft.key}
        length = len(item["image"])
        if items and (len(items) == MOST_ITEMS or size + length > MOST_CHARACTERS):
            yield Batch(first, items)
            first, size, items = first + len(items), 0, []
        items.append(item)
        size += length
    if items:
        yield Batch(first, items)


def broken() -> NoAnswer:
    """For a batch whose last line did not come."""
    return NoAnswer(
        f"{_BROKEN}; what was committed stays: send it again with the same keys", sent=True
    )


def _object(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except ValueError as error:
        raise NotErrata("a line of the answer is no JSON", status=200) from error
    if not isinstance(said, dict):
        raise NotErrata("a line of the answer is no object", status=200)
    return said
