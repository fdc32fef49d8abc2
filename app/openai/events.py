"""The events of one streamed response, numbered: one message with one part of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.streaming import ServerEvent


class Events:
    """In order: `opening`, then a `delta` for each piece of text, then `closing` or `failure`."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self._place = {"item_id": item_id, "output_index": 0, "content_index": 0}
        self._count = 0

    def opening(self, response: dict[str, Any]) -> Iterator[ServerEvent]:
        """`response` as it is before its first token."""
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        item = {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        yield self._event("response.output_item.added", output_index=0, item=item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield self._event("response.content_part.added", **self._place, part=part)

    def delta(self, text: str) -> ServerEvent:
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def closing(self, response: dict[str, Any]) -> Iterator[ServerEvent]:
        """`response` as it is at its end."""
        (item,) = response["output"]
        (part,) = item["content"]
        told = {"text": part["text"], "logprobs": part["logprobs"]}
        yield self._event("response.output_text.done", **self._place, **told)
        yield self._event("response.content_part.done", **self._place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{response['status']}", response=response)

    def failure(self, fields: dict[str, Any]) -> ServerEvent:
        return self._event("error", **fields)

    def _event(self, kind: str, **fields: Any) -> ServerEvent:
        # Of an error too, `type` is the event's.
        data = {**fields, "type": kind, "sequence_number": self._count}
        self._count += 1
        return ServerEvent(data, name=kind)
