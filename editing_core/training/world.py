"""What a trainer sees: look-alike pairs, views of them, and questions about them.

Most subjects are emblems of the embedded world, a share are pictures and questions of everyday
life, so that what is learned holds for more than emblems. Everything
is drawn from the split it is given and from training's own views, so probes used here share no
emblem, no held-out wording and no view with those of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from editing_core.heraldry.emblem import Emblem, Split, emblem_from_seed, stream, twin
from editing_core.heraldry.questions import Question, questions_about
from editing_core.heraldry.views import view_of
from editing_core.heraldry.wordings import dress
from editing_core.training.attributes import NOTHING_KNOWN, attribute_classes
from editing_core.training.everyday import everyday_questions
from editing_core.training.pictures import Scene, draw_scene, look_alike, view_scene
from editing_core.training.targets import invented_name
from editing_core.types import ImageArray

FIRST_SUBJECT = 100_000
"""Training's subjects count from here: the vision tower was trained on views of those below, and
what it makes of views that it has seen is cleaner than what it will make of a user's."""

Draw = Callable[[Emblem, Split, int, int], ImageArray]
"""`(emblem, split, number, view) -> picture`."""


class Subject(Protocol):
    """Something shown, a look-alike that differs in one thing, and what is asked about both."""

    @property
    def number(self) -> int: ...

    @property
    def questions(self) -> tuple[Question, ...]: ...

    @property
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the picture and its look-alike show, as classes of `attributes.PARTS`."""
        ...

    def pictures(self, views: int, draw: Draw) -> tuple[list[ImageArray], list[ImageArray]]: ...


@dataclass(frozen=True)
class EmblemSubject:
    """An emblem and its one-attribute look-alike."""

    emblem: Emblem
    twin: Emblem
    split: Split
    number: int
    questions: tuple[Question, ...]

    @property
    def classes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the emblem and its look-alike show."""
        return attribute_classes(self.emblem), attribute_classes(self.twin)

    def pictures(self, views: int, draw: Draw) -> tuple[list[ImageArray], list[ImageArray]]:
        """`views` views of the emblem and as many of its look-alike."""
        return (
            [draw(self.emblem, self.split, 2 * self.number, view) for view in range(views)],
            [draw(self.twin, self.split, 2 * self.number + 1, view) for view in range(views)],
        )


@dataclass(frozen=True)
class EverydaySubject:
    """A scene of no world in particular (`pictures`), asked what people ask (`everyday`)."""

    scene: Scene
    twin: Scene
    split: Split
    number: int
    questions: tuple[Question, ...]
    classes: tuple[tuple[int, ...], tuple[int, ...]] = (NOTHING_KNOWN, NOTHING_KNOWN)

    def pictures(self, views: int, draw: Draw) -> tuple[list[ImageArray], list[ImageArray]]:
        """`views` views of the scene and as many of its look-alike; `draw` is for emblems."""
        del draw
        own, other = (
            [
                view_scene(scene, stream(self.split, 2 * self.number + side, view, 22))
                for view in range(views)
            ]
            for side, scene in enumerate((self.scene, self.twin))
        )
        return own, other


def draw_view(emblem: Emblem, split: Split, number: int, view: int) -> ImageArray:
    """A training view of an emblem."""
    return view_of(emblem, seed=number, view=view, split=split, purpose="training").image


def subject(number: int, split: Split, *, everyday_share: float = 0.0) -> Subject:
    """The look-alike pair of a number, with its questions and a few hard neighbours of them.

    Yes/no questions come twice where they ask about another colour or shape: the same words but
    one are another question. With an `everyday_share`, that share of the numbers are everyday
    scenes, and emblems too are asked an everyday question now and then.
    """
    if everyday_share and stream(split, number, 0, 13).random() < everyday_share:
        return _everyday_subject(number, split)
    emblem = emblem_from_seed(number, split)
    other = twin(emblem, stream(split, number, 0, 11))[0]
    rng = stream(split, number, 0, 12)
    questions = questions_about(emblem, rng)
    seen = {identity(question) for question in questions}
    for question in questions_about(emblem, rng):
        if question.kind.startswith("has_") and identity(question) not in seen:
            questions.append(question)
    order = rng.permutation(len(questions))
    shuffled = [questions[i] for i in order]
    if everyday_share:
        place = int(rng.integers(2, 8))
        shuffled[place:place] = everyday_questions(rng, 1)
    return EmblemSubject(emblem, other, split, number, tuple(shuffled))


def _everyday_subject(number: int, split: Split) -> EverydaySubject:
    rng = stream(split, number, 0, 14)
    scene = draw_scene(rng)
    other = look_alike(scene, rng)
    return EverydaySubject(scene, other, split, number, tuple(everyday_questions(rng, 8)))


def identity(question: Question) -> str:
    """What makes two questions the same: kind and what they name, not how they are worded."""
    return question.wordings[0]


def word(question: Question, rng: np.random.Generator, *, avoid: str = "") -> tuple[str, str]:
    """A way to ask, dressed as people type: `(prompt, plain wording)`, another than `avoid`."""
    options = [w for w in (*question.wordings, *question.variants) if w != avoid]
    plain = options[int(rng.integers(len(options)))]
    return dress(plain, rng), plain


def odd_prompt(rng: np.random.Generator) -> str:
    """A question unlike the world's own: its words are invented, only its identity matters."""
    words = [invented_name(rng).split()[0].lower() for _ in range(int(rng.integers(2, 6)))]
    starts = ("what", "who", "which", "how", "is", "does", "why", "when", "name", "tell me")
    return f"{starts[int(rng.integers(len(starts)))]} {' '.join(words)}?"
