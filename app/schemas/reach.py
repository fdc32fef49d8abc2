"""Where an edit will apply: questions near it, and what becomes of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, Field

from app.device.reach import Reached
from app.edits.reach import Asked, Preview
from app.errors import InvalidField, MissingField
from app.schemas.base import Prompt, Request
from app.schemas.edits import Wordings


class ReachRequest(Request):
    """An edit by its id, or a prompt that could become one; with scope that it does not have yet,
    and questions of one's own."""

    edit_id: str | None = None
    prompt: Prompt | None = None
    rephrases: Wordings = Field([])
    not_for: Wordings = Field([])
    questions: Annotated[list[Prompt], Field(max_length=32)] = Field([])
    limit: Annotated[int, Field(ge=0, le=40)] = 8

    def asked(self) -> Asked:
        """Raises `MissingField`, and `InvalidField` where both edit and prompt are named."""
        if self.edit_id is None and self.prompt is None:
            raise MissingField("prompt is missing.", param="prompt", hint="Give edit_id or prompt.")
        if self.edit_id is not None and self.prompt is not None:
            raise InvalidField(
                "prompt: the edit has its own.", param="prompt", hint="Give edit_id or prompt."
            )
        return Asked(
            edit_id=self.edit_id,
            prompt=self.prompt,
            rephrases=tuple(self.rephrases),
            not_for=tuple(self.not_for),
            questions=tuple(self.questions),
            limit=self.limit,
        )


class ReachedView(BaseModel):
    """`gate` is how sure the words are, from 0 to 1. An edit applies from `rho` on, unless the
    question is `excluded`: nearer to what the edit is not for. `matched` is the nearest wording."""

    question: str
    applies: bool
    gate: float
    excluded: bool
    matched: str

    @classmethod
    def all_of(cls, found: Sequence[Reached]) -> list[Self]:
        return [
            cls(
                question=each.question,
                applies=each.applies,
                gate=each.gate,
                excluded=each.is_excluded,
                matched=each.matched,
            )
            for each in found
        ]


class ReachView(BaseModel):
    """`asked` are the questions of the request; `will` and `will_not` those of the corpus."""

    prompt: str
    rho: float
    asked: list[ReachedView]
    will: list[ReachedView]
    will_not: list[ReachedView]

    @classmethod
    def of(cls, found: Preview) -> Self:
        return cls(
            prompt=found.prompt,
            rho=found.rho,
            asked=ReachedView.all_of(found.reach.asked),
            will=ReachedView.all_of(found.reach.will),
            will_not=ReachedView.all_of(found.reach.will_not),
        )
