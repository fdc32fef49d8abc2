"""How busy a server is."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from app.admission import OverloadStatus


class LoadView(BaseModel):
    """`waiting` counts requests that wait or run, `not_finite` answers that were no numbers."""

    waiting: int
    limit: int
    wait_s: float
    not_finite: int

    @classmethod
    def of(cls, status: OverloadStatus, *, not_finite: int) -> Self:
        return cls(
            waiting=status.waiting,
            limit=status.limit,
            wait_s=round(status.wait_s, 3),
            not_finite=not_finite,
        )
