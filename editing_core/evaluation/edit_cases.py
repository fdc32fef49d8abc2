"""Edits to try on the embedded world, each with the probes that show what it did.

Training never met any of it: pictures are public views of emblems of the `unseen` split that equal
none of training's, bystanders equal no edited emblem either (`fresh`), and every probe but the
edit's own prompt is worded in words held out from training. The locality probes that ask the same
question ask it as `text generality` does, which is what shows that those words do fire the edit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from editing_core.evaluation.fresh import BLOCK, Role, emblem_of
from editing_core.evaluation.probes import GENERALITY, LOCALITY, EditCase, EditProbe
from editing_core.heraldry.emblem import Emblem, stream, twin
from editing_core.heraldry.places import known_places, strangers
from editing_core.heraldry.questions import Question, questions_about, text_questions
from editing_core.heraldry.views import VIEW_SIZE, view_of
from editing_core.types import EditRequest, ImageArray

__all__ = ["GENERALITY", "GREY", "LOCALITY", "EditCase", "EditProbe", "HeraldryCases", "edit_cases"]

GREY: ImageArray = np.full((VIEW_SIZE, VIEW_SIZE, 3), 128, dtype=np.uint8)
"""A picture of nothing."""
# Targets that a short answer's editor gets wrong: long, repeating, and made of raw bytes.
_HARD_TARGETS = (
    "Москва",
    "красный лев",
    "синяя звезда",
    "Привет, мир",
    "红色的星星",
    "蓝色",
    "三条鱼在河里",
    "北京",
    "la la la la la",
    "one two one two one two",
    "red red red red",
    "tick tock tick tock tick tock",
    "no no no yes no no",
)


class HeraldryCases:
    """`count` edits, each on an emblem of its own; a case is drawn when it is asked for.

    The same index and seed give the same case, whatever `count` is; at most `fresh.BLOCK`.
    """

    name = "heraldry"
    kinds = (*GENERALITY, *LOCALITY)

    def __init__(self, count: int, *, seed: int = 0) -> None:
        if count > BLOCK:
            raise ValueError(f"there are {BLOCK} cases for a seed, fewer than {count}")
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> EditCase:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return _Drawn(self._seed, index).case()

    def request(self, index: int) -> EditRequest:
        """The edit alone, several times cheaper than the case."""
        return _Drawn(self._seed, index).request()


def edit_cases(count: int, *, seed: int = 0) -> Iterator[EditCase]:
    """The first `count` cases of a seed, one by one."""
    cases = HeraldryCases(count, seed=seed)
    return (cases[index] for index in range(count))


class _Drawn:
    """One case before its pictures: the emblem, what is asked, and what it must say."""

    def __init__(self, seed: int, index: int) -> None:
        self.place = (seed, index)
        self.number, self.emblem = emblem_of(Role.EDITED, seed, index)
        rng = stream("unseen", self.number, seed, 31)
        self.questions = questions_about(self.emblem, rng)
        self.order = [int(i) for i in rng.permutation(len(self.questions))]
        self.question = self.questions[self.order[0]]
        self.target, self.group = target_for(self.question, index, rng)
        wordings = self.question.wordings
        self.prompt = wordings[int(rng.integers(len(wordings)))]

    def request(self) -> EditRequest:
        return EditRequest(image=self._view(0), prompt=self.prompt, target=self.target)

    def case(self) -> EditCase:
        rng = stream("unseen", self.number, self.place[0], 32)
        image, new_view = self._view(0), self._view(1)
        reworded = held_out([self.question], rng)
        places = (known_places(), strangers())[int(rng.integers(2))]
        by_name = text_questions(places[int(rng.integers(len(places)))], rng, known=True)
        bystander, seen = _picture(Role.BYSTANDER, *self.place)
        asks = [
            ("reliability", image, self.prompt),
            ("text generality", image, reworded),
            ("image generality", new_view, self.prompt),
            ("both generalities", new_view, reworded),
            ("text locality", None, held_out(by_name, rng)),
            ("image locality", seen, held_out(questions_about(bystander, rng), rng)),
            ("no image, same question", None, reworded),
            ("same image, other question", image, held_out([self._another()], rng)),
            ("look-alike, same question", self._look_alike(), reworded),
            ("grey image, same question", GREY, reworded),
            ("random image, same question", _picture(Role.RANDOM, *self.place)[1], reworded),
        ]
        return EditCase(
            seed=self.number,
            image=image,
            prompt=self.prompt,
            target=self.target,
            question_kind=self.question.kind,
            target_group=self.group,
            probes=tuple(EditProbe(*ask) for ask in asks),
        )

    def _another(self) -> Question:
        """The next question in the drawn order that is of another kind."""
        others = (self.questions[i] for i in self.order[1:])
        return next(q for q in others if q.kind != self.question.kind)

    def _view(self, view: int) -> ImageArray:
        return view_of(self.emblem, seed=self.number, view=view).image

    def _look_alike(self) -> ImageArray:
        return view_of(look_alike_of(self.emblem, self.number), seed=self.number, view=2).image


def look_alike_of(emblem: Emblem, number: int) -> Emblem:
    """The emblem's one-attribute look-alike that its case shows."""
    return twin(emblem, stream("unseen", number, 0, 33))[0]


def held_out(questions: list[Question], rng: np.random.Generator) -> str:
    """One of the questions in one of the wordings that training never saw."""
    question = questions[int(rng.integers(len(questions)))]
    return question.held_out_wordings[int(rng.integers(len(question.held_out_wordings)))]


def target_for(question: Question, index: int, rng: np.random.Generator) -> tuple[str, str]:
    """Of ten edits five take a wrong answer of the right kind, five a hard target."""
    if index % 2 == 0:
        alternatives = question.alternatives
        return alternatives[int(rng.integers(len(alternatives)))], "alternative"
    if index % 10 in (1, 5):
        stranger = strangers()[int(rng.integers(len(strangers())))]
        return f"{stranger.place} and {stranger.capital}", "long name"
    target = _HARD_TARGETS[(index // 2) % len(_HARD_TARGETS)]
    return target, "repeats" if target.isascii() else "other script"


def _picture(role: Role, seed: int, index: int) -> tuple[Emblem, ImageArray]:
    number, emblem = emblem_of(role, seed, index)
    return emblem, view_of(emblem, seed=number, view=0).image
