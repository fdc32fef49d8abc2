"""Where an edit will apply: questions near it, told apart by its words before anybody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.device.reach import Reach
from app.edits.catalogue import Catalogue
from app.edits.wordings import checked, tidied
from app.engine import InferenceEngine
from app.errors import NoQuestionEncoder
from app.store.ledger import Scope
from editing_core.identity import slot_prompt


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose reach is wanted: an edit's, with what is added to its scope, or a prompt's."""

    edit_id: str | None
    prompt: str | None
    rephrases: tuple[str, ...]
    not_for: tuple[str, ...]
    questions: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Preview:
    """`prompt` and `rho` by which `reach` was told."""

    prompt: str
    rho: float
    reach: Reach


class ScopePreview:
    """One per process. One preview at a time, so that they never crowd out questions."""

    def __init__(self, *, engine: InferenceEngine, catalogue: Catalogue) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._turn = asyncio.Lock()

    async def look(self, asked: Asked) -> Preview:
        """Raises `NoQuestionEncoder`, `EditNotFound`, and `InvalidField` for a scope that no edit
        can have."""
        encoder = self._engine.facts.questions
        if encoder is None:
            raise NoQuestionEncoder("This server compares questions without a question encoder.")
        prompt, scope = await self._subject(asked)
        with self._engine.ticket():
            async with self._turn:
                found = await self._engine.reach(
                    (prompt, *scope.rephrases),
                    scope.not_for,
                    questions=asked.questions,
                    limit=asked.limit,
                )
        return Preview(prompt, encoder.rho, found)

    async def _subject(self, asked: Asked) -> tuple[str, Scope]:
        prompt, present = asked.prompt or "", Scope()
        if asked.edit_id is not None:
            wanted = (await self._catalogue.view(asked.edit_id)).wanted
            prompt, present = wanted.prompt, wanted.scope
        rephrases = _with(present.rephrases, tidied(asked.rephrases, "rephrases"))
        not_for = _with(present.not_for, tidied(asked.not_for, "not_for"))
        return prompt, checked(prompt, Scope(rephrases, not_for))


def _with(present: Sequence[str], added: Sequence[str]) -> tuple[str, ...]:
    known = set(map(slot_prompt, present))
    return (*present, *(text for text in added if text not in known))
