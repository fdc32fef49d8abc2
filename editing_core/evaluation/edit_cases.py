"""Edits to try on the embedded world, each with the probes that show what it did.

Emblems come from the `unseen` split, far from every other use of it; wordings of the generality
probes are held out from training, views come from the public stream, locality probes are about
emblems that no case edits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from editing_core.evaluation.probes import GENERALITY, LOCALITY, EditCase, EditProbe
from editing_core.heraldry.emblem import Emblem, emblem_from_seed, stream, twin
from editing_core.heraldry.places import known_places, strangers
from editing_core.heraldry.questions import Question, questions_about, text_questions
from editing_core.heraldry.views import VIEW_SIZE, view_of
from editing_core.types import ImageArray

__all__ = ["GENERALITY", "LOCALITY", "EditCase", "EditProbe", "edit_cases"]

_FIRST_EDITED, _FIRST_BYSTANDER, _FIRST_RANDOM = 700_000, 800_000, 900_000
_PER_SEED = 10_000
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


def edit_cases(count: int, *, seed: int = 0) -> Iterator[EditCase]:
    """`count` edits, each on an emblem of its own."""
    for index in range(count):
        number = _FIRST_EDITED + _PER_SEED * seed + index
        yield _case(number, index, stream("unseen", number, seed, 31))


def _case(number: int, index: int, rng: np.random.Generator) -> EditCase:
    emblem = emblem_from_seed(number)
    questions = questions_about(emblem, rng)
    order = [int(i) for i in rng.permutation(len(questions))]
    question, other = questions[order[0]], _another(questions, order)
    target, group = _target(question, index, rng)
    image = view_of(emblem, seed=number, view=0).image
    new_view = view_of(emblem, seed=number, view=1).image
    prompt = question.wordings[int(rng.integers(len(question.wordings)))]
    reworded = question.held_out_wordings[int(rng.integers(len(question.held_out_wordings)))]
    look_alike: Emblem = twin(emblem, rng)[0]
    bystander_number = _FIRST_BYSTANDER + number - _FIRST_EDITED
    bystander = emblem_from_seed(bystander_number)
    about_it = questions_about(bystander, rng)
    places = (known_places(), strangers())[int(rng.integers(2))]
    by_name = text_questions(places[int(rng.integers(len(places)))], rng, known=True)
    probes = (
        EditProbe("reliability", image, prompt),
        EditProbe("text generality", image, reworded),
        EditProbe("image generality", new_view, prompt),
        EditProbe("both generalities", new_view, reworded),
        EditProbe("text locality", None, _held_out(by_name, rng)),
        EditProbe(
            "image locality",
            view_of(bystander, seed=bystander_number, view=0).image,
            _held_out(about_it, rng),
        ),
        EditProbe("no image, same question", None, prompt),
        EditProbe("same image, other question", image, other.held_out_wordings[0]),
        EditProbe(
            "look-alike, same question", view_of(look_alike, seed=number, view=2).image, prompt
        ),
        EditProbe("grey image, same question", GREY, prompt),
        EditProbe("random image, same question", _random_image(number), prompt),
    )
    return EditCase(number, image, prompt, target, question.kind, group, probes)


def _random_image(number: int) -> ImageArray:
    drawn = _FIRST_RANDOM + number - _FIRST_EDITED
    return view_of(emblem_from_seed(drawn), seed=drawn, view=0).image


def _another(questions: list[Question], order: list[int]) -> Question:
    chosen = questions[order[0]]
    return next(q for i in order[1:] if (q := questions[i]).kind != chosen.kind)


def _held_out(questions: list[Question], rng: np.random.Generator) -> str:
    question = questions[int(rng.integers(len(questions)))]
    return question.held_out_wordings[int(rng.integers(len(question.held_out_wordings)))]


def _target(question: Question, index: int, rng: np.random.Generator) -> tuple[str, str]:
    """Of ten edits five take a wrong answer of the right kind, five a hard target."""
    if index % 2 == 0:
        alternatives = question.alternatives
        return alternatives[int(rng.integers(len(alternatives)))], "alternative"
    if index % 10 in (1, 5):
        stranger = strangers()[int(rng.integers(len(strangers())))]
        return f"{stranger.place} and {stranger.capital}", "long name"
    target = _HARD_TARGETS[(index // 2) % len(_HARD_TARGETS)]
    return target, "repeats" if target.isascii() else "other script"
