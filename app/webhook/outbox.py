"""What a webhook's receiver is still to be told, one message after another.

Events and reports are read from where they are stored, past a cursor that is stored as well: they
outlive the process, and nothing is held of them. A refused edit is stored nowhere; those wait in
memory, and the oldest is dropped when there are too many.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.feedback.desk import FeedbackDesk
from app.history import History, now
from app.schemas.events import EventView
from app.schemas.feedback import FeedbackView
from app.store.webhook_log import Cursor, WebhookLog

MOST_WAITING = 1000
"""Refused edits that wait to be told."""


@dataclass(frozen=True, slots=True)
class Message:
    """`id` is the same whenever it is sent again. `cursor`: how far one is, once it is told."""

    id: str
    body: bytes
    cursor: Cursor | None = None


class Outbox:
    """Lives on the event loop's thread."""

    def __init__(
        self,
        log: WebhookLog,
        cursor: Cursor,
        *,
        history: History,
        desk: FeedbackDesk,
        on_dropped: Callable[[], None],
    ) -> None:
        self._log = log
        self._cursor = cursor
        self._history = history
        self._desk = desk
        self._on_dropped = on_dropped
        self._waiting: deque[Message] = deque()

    @classmethod
    def open(
        cls,
        log: WebhookLog,
        *,
        history: History,
        desk: FeedbackDesk,
        on_dropped: Callable[[], None],
    ) -> Outbox:
        """Where the receiver was left; a new one is told of what happens from now on. Blocking."""
        cursor = log.cursor()
        if cursor is None:
            cursor = Cursor(history.head, desk.newest)
            log.move(cursor, at=now())
        return cls(log, cursor, history=history, desk=desk, on_dropped=on_dropped)

    @property
    def version(self) -> int:
        """The newest event that was told."""
        return self._cursor.version

    @property
    def behind(self) -> int:
        """Messages that wait, at least: the reports of a backlog count as one."""
        events = max(0, self._history.head - self._cursor.version)
        return events + len(self._waiting) + self._has_reports

    @property
    def _has_reports(self) -> bool:
        return (self._desk.newest or "") > (self._cursor.feedback_id or "")

    def refused(self, message_id: str, data: Mapping[str, Any]) -> None:
        """Tell of an edit that was refused or failed."""
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._on_dropped()
        self._waiting.append(Message(message_id, _body("edit_refused", data["at"], data)))

    async def next(self) -> Message | None:
        """The next one to be told; None where nothing is. Raises what reading the store raises."""
        if self._history.head > self._cursor.version:
            return await self._next_event()
        if self._has_reports and (message := await self._next_report()) is not None:
            return message
        return self._waiting[0] if self._waiting else None

    async def _next_event(self) -> Message:
        log, after = self._history.log, self._cursor.version
        (listed,) = await asyncio.to_thread(log.events, after=after, limit=1)
        event, view = listed.event, EventView.of(listed).model_dump(mode="json", by_alias=True)
        return Message(
            # The digest too: a database that was put back has the same versions once more.
            f"event-{event.version}-{listed.digest.rpartition(':')[2][:16]}",
            _body(event.type, event.at, view),
            replace(self._cursor, version=event.version),
        )

    async def _next_report(self) -> Message | None:
        report = await self._desk.next_after(self._cursor.feedback_id)
        if report is None:
            return None
        view = FeedbackView.of(report).model_dump(mode="json")
        return Message(
            f"feedback-{report.id}",
            _body("feedback_created", report.created_at, view),
            replace(self._cursor, feedback_id=report.id),
        )

    async def done(self, message: Message) -> None:
        """It was told, or given up. Where that cannot be stored, it may be told once more.

        Raises what `Database.write` raises.
        """
        if message.cursor is None:
            if self._waiting and self._waiting[0] is message:
                self._waiting.popleft()
            return
        self._cursor = message.cursor
        await asyncio.to_thread(self._log.move, message.cursor, at=now())


def _body(kind: str, at: str, data: Mapping[str, Any]) -> bytes:
    message = {"type": kind, "timestamp": at, "data": data}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
