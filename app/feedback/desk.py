"""Reports of answers: taken in, listed, and closed by an edit, by a scope, or by dismissal."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from app.errors import AnswerNotFound, FeedbackClosed, FeedbackFull, FeedbackNotFound, MissingField
from app.feedback.answers import RecentAnswers
from app.history import Caller, History, now
from app.images import ImageDecoder, encode_png, thumbnail_of
from app.store.feedback_log import Closing, FeedbackLog, Report
from app.ulid import UlidSequence

MAX_OPEN = 10_000
"""Reports that nobody has looked at. More are refused: each holds a picture."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What somebody says of an answer. `verdict`: right or wrong."""

    verdict: str
    correction: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """An answer that was reported elsewhere. `image` is the request's own field."""

    source: str
    source_id: str
    prompt: str
    answer: str
    image: str | None


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
        self.newest = log.newest_id()
        """The id of the newest report."""
        self._ids = UlidSequence(after=self.newest)
        self._turn = asyncio.Lock()

    async def report(self, answer_id: str, complaint: Complaint, *, caller: Caller) -> Report:
        """Keep what somebody says of an answer, with all that it takes to correct it.

        Raises `AnswerNotFound` for one that is no longer known, `FeedbackFull`, and
        `StoreUnavailable`.
        """
        answer = self.answers.get(answer_id)
        if answer is None:
            raise AnswerNotFound(
                f"There is no answer {answer_id!r}, or it is too old.", param="answer_id"
            )
        png, digest = await self._picture(answer.image)
        async with self._turn:
            report = self._report(
                complaint,
                digest,
                caller=caller,
                prompt=answer.prompt,
                answer=answer.text,
                answer_id=answer.id,
                version=answer.version,
                applied=json.dumps(answer.applied),
            )
            return await self._add(report, png)

    async def take_in(
        self, foreign: Foreign, complaint: Complaint, *, caller: Caller
    ) -> tuple[Report, bool]:
        """Keep a report from elsewhere; and whether it was here already, then unchanged.

        Raises what decoding its picture raises, `FeedbackFull`, and `StoreUnavailable`.
        """
        # Known ones are not decoded again; what came meanwhile is noticed below.
        if (known := await self._known(foreign)) is not None:
            return known, True
        png, digest = await self._picture(foreign.image)
        async with self._turn:
            if (known := await self._known(foreign)) is not None:
                return known, True
            report = self._report(
                complaint,
                digest,
                caller=caller,
                prompt=foreign.prompt,
                answer=foreign.answer,
                source=foreign.source,
                source_id=foreign.source_id,
            )
            return await self._add(report, png), False

    async def _known(self, foreign: Foreign) -> Report | None:
        return await asyncio.to_thread(self._log.by_source, foreign.source, foreign.source_id)

    def _report(
        self, complaint: Complaint, digest: str | None, *, caller: Caller, **subject: Any
    ) -> Report:
        """`subject` are the fields that say what is complained of."""
        return Report(
            id=self._ids.next(),
            status="open",
            verdict=complaint.verdict,
            correction=complaint.correction,
            comment=complaint.comment,
            image_digest=digest,
            created_at=now(),
            created_by=caller.actor,
            **subject,
        )

    async def _add(self, report: Report, png: bytes | None) -> Report:
        if await asyncio.to_thread(self._log.count_open) >= MAX_OPEN:
            raise FeedbackFull(
                f"{MAX_OPEN:,} reports wait for somebody to look at them.", retry_after_s=60
            )
        await asyncio.to_thread(self._log.add, report, png)
        self.newest = report.id
        return report

    async def _picture(self, image: str | None) -> tuple[bytes | None, str | None]:
        """The picture of a request's field as it is stored, and its digest."""
        if image is None:
            return None, None
        async with self._decoder.open(image) as decoded:
            return await asyncio.to_thread(encode_png, decoded.pixels), decoded.digest

    async def page(
        self, *, status: str | None, after: str | None, limit: int
    ) -> tuple[list[Report], bool]:
        """One page, newest first, and whether there are more."""
        reports = await asyncio.to_thread(
            self._log.page, status=status, below=after, limit=limit + 1
        )
        return reports[:limit], len(reports) > limit

    async def next_after(self, feedback_id: str | None) -> Report | None:
        """The oldest report newer than `feedback_id`, or of all."""
        return await asyncio.to_thread(self._log.next_after, feedback_id or "")

    async def one(self, feedback_id: str) -> Report:
        """Raises `FeedbackNotFound`."""
        report = await asyncio.to_thread(self._log.one, feedback_id)
        if report is None:
            raise FeedbackNotFound(f"There is no feedback {feedback_id!r}.", param="id")
        return report

    async def thumbnail(self, feedback_id: str) -> bytes:
        """Its picture, small, as WebP. Raises what `picture` raises, and `StoreDamaged`."""
        digest = (await self.one(feedback_id)).image_digest
        png = await self.picture(feedback_id)
        async with self._decoder.reopen(png, digest or "") as pixels:
            return await asyncio.to_thread(thumbnail_of, pixels)

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
            report = await self.one(feedback_id)
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
