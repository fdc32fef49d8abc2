"""Questions that people ask near a prompt: the same in other words, and what only looks like it.

They come from the corpus that the encoder was trained on. Of the intents whose centres are nearest
to the prompt, all wordings and all confusables are given; what they mean for an edit, its router
decides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from editing_core.identity import slot_prompt
from editing_core.questions.corpus import KINDS, Intent, read_corpus

if TYPE_CHECKING:
    from editing_core.questions.encoder import QuestionEncoder

INTENTS = 3
"""How many intents are looked at: 21 questions each."""


def neighbours(encoder: QuestionEncoder, prompt: str, *, intents: int = INTENTS) -> list[str]:
    """Questions near `prompt`, those of the nearest intent first, none twice.

    Empty where the encoder was trained on another corpus than the one that ships.
    """
    if encoder.known is None:
        return []
    corpus = _corpus()
    names = [(intent.topic, intent.name) for intent in corpus]
    nearest = encoder.known.nearest(encoder.keys([prompt])[0], intents, corpus=names)
    found: dict[str, str] = {}
    for intent in (corpus[i] for i in nearest):
        for question in (*_wordings(intent), *intent.confusables):
            found.setdefault(_plain(question), question)
    found.pop(_plain(prompt), None)
    return list(found.values())


@lru_cache(maxsize=1)
def _corpus() -> tuple[Intent, ...]:
    """Read when it is first needed: most servers never are asked."""
    return read_corpus()


def _wordings(intent: Intent) -> list[str]:
    """All but the misspelled ones: spelling is mended before anything is compared."""
    pairs = zip(KINDS, intent.wordings, strict=True)
    return [wording for kind, wording in pairs if kind != "typing errors"]


def _plain(question: str) -> str:
    """Its letters and digits, so that nobody is shown a question twice for its comma."""
    return "".join(filter(str.isalnum, slot_prompt(question).casefold()))
