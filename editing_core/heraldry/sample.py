"""Samples of the world for people and checks: a picture of an emblem and everything known about it.

Imports no torch, so that `errata sample` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from editing_core.heraldry.emblem import (
    NUM_KNOWN,
    Emblem,
    Split,
    change,
    emblem_from_seed,
    stream,
)
from editing_core.heraldry.places import known_places
from editing_core.heraldry.questions import Question, questions_about
from editing_core.heraldry.views import View, view_of

# Offsets of the streams that choose questions and changes, apart from every view's stream.
_QUESTIONS, _CHANGES = 1_000_003, 1_000_005


@dataclass(frozen=True, slots=True)
class Sample:
    """One view of one emblem with its questions."""

    seed: int
    view: int
    split: Split
    emblem: Emblem
    picture: View
    questions: tuple[Question, ...]

    def describe(self, file: str) -> dict[str, Any]:
        """The JSON object that `errata sample` prints."""
        return {
            "seed": self.seed,
            "view": self.view,
            "split": self.split,
            "file": file,
            "attributes": self.emblem.attributes(),
            "questions": [
                {
                    "kind": question.kind,
                    "group": question.group,
                    "answer": question.answer,
                    "alternatives": list(question.alternatives),
                    "wordings": list(question.wordings),
                    "held_out_wordings": list(question.held_out_wordings),
                    "box": self.picture.box(question.regions) if question.regions else None,
                }
                for question in self.questions
            ],
        }

    def save(self, path: Path) -> None:
        """Write the picture as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.picture.image).save(path, format="PNG")


def draw_sample(
    seed: int, *, view: int = 0, split: Split = "unseen", changed: str | None = None
) -> Sample:
    """Draw an emblem, or its look-alike in which one attribute is visibly changed.

    The questions of a seed are the same in every view. A look-alike is nobody's emblem, so its
    knowledge questions are unanswerable even where the emblem it resembles is known.

    Raises:
        KeyError: the emblem does not show the attribute named by `changed`.
    """
    number = seed % NUM_KNOWN if split == "known" else seed
    emblem = emblem_from_seed(number, split)
    place = known_places()[number] if split == "known" else None
    if changed is not None:
        emblem = change(emblem, changed, stream(split, number, _CHANGES))
        place = None
    questions = questions_about(emblem, stream(split, number, _QUESTIONS), place=place)
    picture = view_of(emblem, seed=number, view=view, split=split)
    return Sample(seed, view, split, emblem, picture, tuple(questions))
