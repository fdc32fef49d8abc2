"""The table of known questions beside an encoder: its corpus, and what its own world asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editing_core.heraldry.intents import intents as world_intents
from editing_core.questions.corpus import KINDS, NUM_CONFUSABLES, Intent, read_further
from editing_core.questions.known import centre_of, save_known
from editing_core.training.questions import HOME

Keys = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to keys `[texts, dim]`, each of length 1."""


def write_known(file: Path, keys: Keys, corpus: Sequence[Intent]) -> None:
    """Write `file`, see `questions/known.py`.

    The embedded world's questions bring centres only: what each is confused with are the others.
    So do further lines of intents: confusables that say "there" or "they" are near any such
    question, and would exclude it.
    """
    lines = [*corpus, *read_further()]
    names = [(intent.topic, intent.name) for intent in lines]
    wordings = keys([w for intent in lines for w in intent.wordings])
    centres = [centre_of(each) for each in np.split(wordings, len(wordings) // len(KINDS))]
    for name, texts in world_intents():
        names.append((HOME, name))
        centres.append(centre_of(keys(texts)))
    others = keys([c for intent in corpus for c in intent.confusables])
    others_of = [name for name in names[: len(corpus)] for _ in range(NUM_CONFUSABLES)]
    save_known(file, np.stack(centres), names, others, others_of)
