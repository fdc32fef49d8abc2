"""What can be asked about an emblem, and the answers.

A question is a value made from the emblem alone: its answer, wrong answers of the right kind, its
wordings, and where in a view the thing asked about lies. Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from editing_core.heraldry.drawing import FIRST_CHARGE, SECOND_CHARGE
from editing_core.heraldry.emblem import (
    COLOURS,
    OUTLINES,
    PATTERNS,
    PLACES,
    SHAPES,
    Charge,
    Emblem,
    change,
    pair_names,
    twin,
)
from editing_core.heraldry.places import FACT_KINDS, REGIONS, TRADES, Place, strangers
from editing_core.heraldry.wordings import (
    HELD_OUT,
    TEXT_HELD_OUT,
    TEXT_TRAINED,
    TEXT_VARIANTS,
    TRAINED,
    VARIANTS,
)

UNKNOWN = "unknown"
NUMBERS = ("one", "two", "three", "four", "five")
Group = Literal["perception", "knowledge"]
PERCEPTION_KINDS = (
    "outline",
    "pattern",
    "field_colour",
    "field_colours",
    "border",
    "charge_shape",
    "charge_colour",
    "count",
    "position",
    "left_shape",
    "right_shape",
    "left_colour",
    "right_colour",
    "upper_shape",
    "lower_shape",
    "upper_colour",
    "lower_colour",
    "has_charge",
    "has_border",
    "has_field",
    "bearing",
    "describe",
)
SIDES = {
    "left": "on the left",
    "right": "on the right",
    "upper": "at the top",
    "lower": "at the bottom",
}
_PLURALS = {
    "cross": "crosses",
    "fish": "fish",
    "hourglass": "hourglasses",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one emblem, or about a place by name (`regions` empty, no picture).

    `regions` are the region labels of the thing asked about; empty for questions about the whole.
    `variants` are more wordings that training saw, in later stretches only.
    """

    kind: str
    group: Group
    answer: str
    alternatives: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out_wordings: tuple[str, ...]
    regions: tuple[int, ...] = ()
    variants: tuple[str, ...] = ()


def plural(shape: str) -> str:
    """`star` -> `stars`, `cross` -> `crosses`."""
    return _PLURALS.get(shape, shape + "s")


def bearing(emblem: Emblem) -> str:
    """The charges with their colours: `three yellow stars`, `a red disc and a blue fish`."""
    if emblem.is_pair:
        first, second = (_a(f"{c.colour} {c.shape}") for c in emblem.charges)
        return f"{first} and {second}"
    charge = emblem.charges[0]
    if emblem.count == 1:
        return _a(f"{charge.colour} {charge.shape}")
    return f"{NUMBERS[emblem.count - 1]} {charge.colour} {plural(charge.shape)}"


def describe(emblem: Emblem) -> str:
    """The whole emblem in one phrase."""
    colours = " and ".join(emblem.field_colours)
    border = f"{_a(emblem.border)} border" if emblem.border else "no border"
    field = _a(f"{emblem.pattern} {colours} {emblem.outline}")
    return f"{field} with {bearing(emblem)} and {border}"


def questions_about(
    emblem: Emblem, rng: np.random.Generator, *, place: Place | None = None
) -> list[Question]:
    """Every question that applies to the emblem, one of each kind.

    Args:
        rng: chooses what yes/no questions ask and which alternatives are offered.
        place: the bearer of a known emblem. Without one nobody could know: facts are "unknown".
    """
    return [*_perception(emblem, rng), *_knowledge(place, rng)]


def text_questions(place: Place, rng: np.random.Generator, *, known: bool) -> list[Question]:
    """Questions about a place by its name, without a picture."""
    questions = []
    for kind in TEXT_TRAINED:
        answer = place.fact(kind) if known else UNKNOWN
        questions.append(
            Question(
                kind=kind,
                group="knowledge",
                answer=answer,
                alternatives=_facts(kind, answer, rng),
                wordings=tuple(w.format(place=place.place) for w in TEXT_TRAINED[kind]),
                held_out_wordings=tuple(w.format(place=place.place) for w in TEXT_HELD_OUT[kind]),
                variants=tuple(w.format(place=place.place) for w in TEXT_VARIANTS[kind]),
            )
        )
    return questions


def _perception(emblem: Emblem, rng: np.random.Generator) -> list[Question]:
    make = _Maker(rng)
    found = [
        make("outline", emblem.outline, OUTLINES),
        make("pattern", emblem.pattern, PATTERNS),
        _field(emblem, make),
        make("border", emblem.border or "none", (*COLOURS, "none")),
    ]
    if emblem.is_pair:
        asked = int(rng.integers(2))
        names = pair_names(emblem.place)
        for name, charge, label in zip(
            names, emblem.charges, (FIRST_CHARGE, SECOND_CHARGE), strict=True
        ):
            words, where = {"side": SIDES[name]}, (label,)
            found.append(
                make(f"{name}_shape", charge.shape, SHAPES, "side_shape", words, regions=where)
            )
            found.append(
                make(f"{name}_colour", charge.colour, COLOURS, "side_colour", words, regions=where)
            )
        side = {"upper": "top", "lower": "bottom"}.get(names[asked], names[asked])
        regions: tuple[int, ...] = ((FIRST_CHARGE, SECOND_CHARGE)[asked],)
        found.append(_colour(emblem.charges[asked], 1, make, regions))
        found.append(_position(emblem.charges[asked], side, make, regions))
        counted = "charges"
        counted_regions: tuple[int, ...] = (FIRST_CHARGE, SECOND_CHARGE)
        count = 2
    else:
        charge, regions = emblem.charges[0], (FIRST_CHARGE,)
        found.append(make("charge_shape", charge.shape, SHAPES, regions=regions))
        found.append(_colour(charge, emblem.count, make, regions))
        if emblem.count == 1:
            found.append(_position(charge, emblem.place, make, regions))
        counted = plural(charge.shape) if rng.random() < 0.7 else "charges"
        counted_regions, count = (FIRST_CHARGE,), emblem.count
    counting = {"charges": counted}
    found.append(
        make("count", NUMBERS[count - 1], NUMBERS, words=counting, regions=counted_regions)
    )
    found.extend(_yes_no(emblem, make, rng))
    found.append(make("bearing", bearing(emblem), _look_alike_bearings(emblem, rng)))
    others = tuple(describe(twin(emblem, rng)[0]) for _ in range(8))
    found.append(make("describe", describe(emblem), others))
    return found


def _look_alike_bearings(emblem: Emblem, rng: np.random.Generator) -> tuple[str, ...]:
    names = pair_names(emblem.place) if emblem.is_pair else ("charge",)
    aspects = [f"{name}_{aspect}" for name in names for aspect in ("shape", "colour")]
    return tuple(bearing(change(emblem, aspect, rng)) for aspect in aspects * 2)


def _field(emblem: Emblem, make: _Maker) -> Question:
    if emblem.second_colour is None:
        return make("field_colour", emblem.field_colour, COLOURS)
    pairs = tuple(
        f"{first} and {second}" for i, first in enumerate(COLOURS) for second in COLOURS[i + 1 :]
    )
    return make("field_colours", " and ".join(emblem.field_colours), pairs)


def _colour(charge: Charge, count: int, make: _Maker, regions: tuple[int, ...]) -> Question:
    words = {"charge": charge.shape}
    question = make("charge_colour", charge.colour, COLOURS, words=words, regions=regions)
    if count == 1:
        return question
    return _of_many(question, charge.shape)


def for_many(wording: str, singular: str) -> str:
    """The wording for several charges: `is the star` -> `are the stars`."""
    many = plural(singular)
    for verb, verbs in (("is the ", "are the "), ("does the ", "do the ")):
        wording = wording.replace(verb + singular, verbs + many)
    wording = wording.replace(f"The {singular} is", f"The {many} are")
    return wording.replace(f"of the {singular}", f"of the {many}")


def _of_many(question: Question, singular: str) -> Question:
    return Question(
        kind=question.kind,
        group=question.group,
        answer=question.answer,
        alternatives=question.alternatives,
        wordings=tuple(for_many(w, singular) for w in question.wordings),
        held_out_wordings=tuple(for_many(w, singular) for w in question.held_out_wordings),
        regions=question.regions,
        variants=tuple(for_many(w, singular) for w in question.variants),
    )


def _position(charge: Charge, where: str, make: _Maker, regions: tuple[int, ...]) -> Question:
    return make("position", where, PLACES, words={"charge": charge.shape}, regions=regions)


def _yes_no(emblem: Emblem, make: _Maker, rng: np.random.Generator) -> list[Question]:
    present = [charge.shape for charge in emblem.charges]
    absent = [shape for shape in SHAPES if shape not in present]
    shape, says_yes = _claim(present, absent, rng)
    where: tuple[int, ...] = ()
    if says_yes:
        where = ((FIRST_CHARGE, SECOND_CHARGE)[present.index(shape)],)
    colour, border_yes = _claim(
        [emblem.border] if emblem.border else [], [c for c in COLOURS if c != emblem.border], rng
    )
    tint, field_yes = _claim(
        list(emblem.field_colours), [c for c in COLOURS if c not in emblem.field_colours], rng
    )
    return [
        make("has_charge", _yes(says_yes), ("yes", "no"), words={"charge": shape}, regions=where),
        make("has_border", _yes(border_yes), ("yes", "no"), words={"colour": colour}),
        make("has_field", _yes(field_yes), ("yes", "no"), words={"colour": tint}),
    ]


def _claim(true: list[str], false: list[str], rng: np.random.Generator) -> tuple[str, bool]:
    says_yes = bool(true) and rng.random() < 0.5
    options = true if says_yes else false
    return options[int(rng.integers(len(options)))], says_yes


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def _knowledge(place: Place | None, rng: np.random.Generator) -> list[Question]:
    found = []
    for kind in FACT_KINDS:
        answer = place.fact(kind) if place else UNKNOWN
        found.append(
            Question(
                kind=kind,
                group="knowledge",
                answer=answer,
                alternatives=_facts(kind, answer, rng),
                wordings=TRAINED[kind],
                held_out_wordings=HELD_OUT[kind],
                variants=VARIANTS[kind],
            )
        )
    return found


def _facts(kind: str, answer: str, rng: np.random.Generator) -> tuple[str, ...]:
    if kind in ("region", "trade"):
        return _some(REGIONS if kind == "region" else TRADES, answer, rng)
    return _some(tuple(stranger.fact(kind) for stranger in strangers()), answer, rng)


def _some(
    options: Sequence[str], answer: str, rng: np.random.Generator, *, most: int = 4
) -> tuple[str, ...]:
    wrong = sorted({option for option in options if option != answer})
    order = rng.permutation(len(wrong))[:most]
    return tuple(wrong[i] for i in order)


def _a(phrase: str) -> str:
    return articles(f"a {phrase}")


def articles(text: str) -> str:
    """`a orange border` -> `an orange border`."""
    return re.sub(r"\b([Aa]) (?=[aeiou]|hour)", r"\1n ", text)


class _Maker:
    """Builds perception questions from the wordings of their kind."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def __call__(
        self,
        kind: str,
        answer: str,
        options: Sequence[str],
        worded_as: str | None = None,
        words: dict[str, str] | None = None,
        *,
        regions: tuple[int, ...] = (),
    ) -> Question:
        wrong = _some(options, answer, self._rng)
        if len(wrong) < 2:
            # A yes/no question has one wrong answer of its kind; an edit may also say neither.
            wrong = (*wrong, UNKNOWN)
        words = words or {}
        return Question(
            kind=kind,
            group="perception",
            answer=answer,
            alternatives=wrong,
            wordings=tuple(articles(w.format(**words)) for w in TRAINED[worded_as or kind]),
            held_out_wordings=tuple(
                articles(w.format(**words)) for w in HELD_OUT[worded_as or kind]
            ),
            regions=regions,
            variants=tuple(articles(w.format(**words)) for w in VARIANTS[worded_as or kind]),
        )
