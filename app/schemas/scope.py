"""Scope by example: wordings that an edit answers, and questions that it leaves alone."""

from __future__ import annotations

from pydantic import Field

from app.edits.edit import Verify
from app.edits.scope import ScopeChange
from app.schemas.base import Reason, Request
from app.schemas.edits import Wordings


class ScopeRequest(Request):
    """What to add to an edit's scope, and what to take from it."""

    rephrases: Wordings = Field([])
    not_for: Wordings = Field([])
    remove_rephrases: Wordings = Field([])
    remove_not_for: Wordings = Field([])
    verify: Verify = "strict"
    reason: Reason | None = None

    def change(self) -> ScopeChange:
        """Raises `InvalidField` and `MissingField`."""
        return ScopeChange.of(
            rephrases=self.rephrases,
            not_for=self.not_for,
            remove_rephrases=self.remove_rephrases,
            remove_not_for=self.remove_not_for,
        )
