"""Questions that an edit is for, and not for: tidied, and refused where the lists contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.errors import InvalidField
from app.store.ledger import Scope
from editing_core.identity import slot_prompt

MOST = 32

Field = Literal["rephrases", "not_for", "remove_rephrases", "remove_not_for"]


def tidied(texts: Sequence[str], field: Field) -> tuple[str, ...]:
    """In NFC, trimmed, single spaces. Raises `InvalidField` on a blank or a second of the same."""
    tidy = tuple(map(slot_prompt, texts))
    for at, text in enumerate(tidy):
        if not text:
            raise InvalidField(f"{field}: must not be blank.", param=field)
        if text in tidy[:at]:
            raise InvalidField(f"{field}: {text!r} is there twice.", param=field)
    return tidy


def checked(prompt: str, scope: Scope) -> Scope:
    """A scope of tidy texts, if an edit of `prompt` can have it. Raises `InvalidField`."""
    for field, texts in (("rephrases", scope.rephrases), ("not_for", scope.not_for)):
        if len(texts) > MOST:
            raise InvalidField(
                f"{field}: an edit may have {MOST}, and this would make {len(texts)}.", param=field
            )
    own = set(map(slot_prompt, (prompt, *scope.rephrases)))
    for text in scope.not_for:
        if text in own:
            raise InvalidField(
                f"not_for: {text!r} is the edit's own prompt, or one of its rephrases.",
                param="not_for",
                hint="A question is the edit's or it is not: take it out of one of the lists.",
            )
    return scope
