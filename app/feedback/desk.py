"""Reports of answers: taken in, listed, and closed by an edit, by a scope, or by dismissal."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from app.errors import AnswerNotFound, FeedbackClosed, FeedbackFull, FeedbackNotFound, MissingField
from app.feedback.answers import KeptAnswer, RecentAnswers
from app.history import Caller, History, now
from app.images import ImageDecoder, encode_png
from app.store.feedback_log import Closing, FeedbackLog, Report
from app.ulid import UlidSequence

MAX_OPEN = 10_000
"""Reports that nobody has looked at. More are refused: each holds a picture."""


class FeedbackDesk:
    """One per process; lives on the event loop's thread."""

    def __init__(
        self, log: FeedbackLog, *, answers: RecentAnswers, decoder: ImageDecoder, history: History
    ) -> None:
        """Reads the newest id: blocking."""
        self.answers = answers
        self._log = log
        self._decoder = decoder
        self._history = history
        self._ids = UlidSequence(after=log.newest_id())
        self._turn = asyncio.Lock()

    async def report(
        self,
        answer_id: str,
        *,
        verdict: str,
        correction: str | None,
        comment: str | None,
        caller: Caller,
    ) -> Report:
        """Keep what somebody says of an answer, with all that it takes to correct it.

        Raises `AnswerNotFound` for one that is no longer known, `FeedbackFull`, and
        `StoreUnavailable`.
        """
        answer = self.answers.get(answer_id)
        if answer is None:
            raise AnswerNotFound(
                f"There is no answer {answer_id!r}, or it is too old.", param="answer_id"
            )
        png, digest = await self._picture(answer)
        async with self._turn:
            if await asyncio.to_thread(self._log.count_open) >= MAX_OPEN:
                raise FeedbackFull(
                    f"{MAX_OPEN:,} reports wait for somebody to look at them.", retry_after_s=60
                )
            report = Report(
                id=self._ids.next(),
                status="open",
                answer_id=answer.id,
                verdict=verdict,
                correction=correction,
                comment=comment,
                prompt=answer.prompt,
                answer=answer.text,
                image_digest=digest,
                version=answer.version,
                applied=json.dumps(answer.applied),
                created_at=now(),
                created_by=caller.actor,
            )
            await asyncio.to_thread(self._log.add, report, png)
        return report

    async def _picture(self, answer: KeptAnswer) -> tuple[bytes | None, str | None]:
        """The answer's picture as it is stored, and its digest."""
        if answer.image is None:
            return None, None
        async with self._decoder.open(answer.image) as image:
            return await asyncio.to_thread(encode_png, image.pixels), image.digest

    async def page(
        self, *, status: str | None, after: str | None, limit: int
    ) -> tuple[list[Report], bool]:
        """One page, newest first, and whether there are more."""
        reports = await asyncio.to_thread(
            self._log.page, status=status, below=after, limit=limit + 1
        )
        return reports[:limit], len(reports) > limit

    async def picture(self, feedback_id: str) -> bytes:
        """The PNG of a reported answer. Raises `FeedbackNotFound`, also where there was none."""
        png = await asyncio.to_thread(self._log.png, feedback_id)
        if png is None:
            raise FeedbackNotFound(f"There is no picture of {feedback_id!r}.", param="id")
        return png

    async def close(self, feedback_id: str, closing: Closing, *, caller: Caller) -> Report:
        """Say what came of a report. The same again changes nothing.

        Raises `FeedbackNotFound`, `FeedbackClosed`, `EditNotFound`, and `MissingField` where an
        edit or a scope names no edit.
        """
        if closing.edit_id is not None:
            self._history.require(closing.edit_id, param="edit_id")
        elif closing.by != "dismissal":
            raise MissingField("edit_id names the edit that mends it.", param="edit_id")
        async with self._turn:
            report = await asyncio.to_thread(self._log.one, feedback_id)
            if report is None:
                raise FeedbackNotFound(f"There is no feedback {feedback_id!r}.", param="id")
            if report.status != "open":
                if report.closing == closing:
                    return report
                raise FeedbackClosed(f"The feedback {feedback_id} is {report.status}.", param="id")
            closed = replace(
                report,
                status="dismissed" if closing.by == "dismissal" else "resolved",
                closed_by=closing.by,
                edit_id=closing.edit_id,
                reason=closing.reason,
                closed_at=now(),
                closed_actor=caller.actor,
            )
            await asyncio.to_thread(self._log.close, closed)
        return closed
