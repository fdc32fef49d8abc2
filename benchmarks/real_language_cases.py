"""What the proving ground edits, and what it asks: flags, emoji and emblems in turn."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.everyday_wordings import FACTS, PICTURES, Topic
from benchmarks.flags import FlagEdit, Question, read_flags
from editing_core.evaluation.datasets.records import DatasetError
from editing_core.heraldry.emblem import emblem_from_seed
from editing_core.heraldry.places import strangers
from editing_core.heraldry.views import view_of

RELIABILITY = "reliability"
OTHER_FILE = "other file of the flag"
CONFUSABLE = "confusable questions"
OTHER = "other questions"
TEXT_ONLY = "text only"

_EMOJI = Path("emoji/names.json")
_OTHERS = (
    "What time of day is it?",
    "Is anybody smiling in this picture?",
    "How many colours can you count?",
    "What would be a good title for this picture?",
    "Is this a photograph or a drawing?",
    "What is in the top left corner?",
    "Does this picture make you happy?",
    "Write a short poem about what you see.",
)
"""Ordinary questions about any picture, none of them an edit's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An edit: what is to be answered to `question`. `turn` numbers those of one topic;
    `other_file` is another picture of it."""

    topic: Topic
    question: Question
    target: str
    turn: int = 0
    other_file: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of an edit; `kind` is a kind of wording or one of this module's constants."""

    edit: Wanted
    kind: str
    question: Question

    @property
    def is_everyday(self) -> bool:
        """Whether it asks the edit's question in other words."""
        return self.kind in self.edit.topic.wordings

    @property
    def is_compared(self) -> bool:
        """Whether the unedited answer says something of it: other words for what it is asked
        already need no second pass of the unedited model."""
        return not self.is_everyday and self.kind != OTHER_FILE


def wanted(topics: Sequence[Topic], data: Path, drawn: Path, count: int) -> list[Wanted]:
    """The first `count` edits, each on a picture of its own; topics take turns.

    `data` holds flags/ and emoji/; emblems are drawn into `drawn`. Raises `DatasetError`.
    """
    names = {shows: [t.name for t in topics if t.shows == shows] for shows in PICTURES}
    sources = {
        "flags": _flags(data, names["flags"]),
        "emoji": _emoji(data, names["emoji"]),
        "emblems": _emblems(drawn, names["emblems"]),
    }
    order = [topics[number % len(topics)] for number in range(count)]
    made: list[Wanted] = []
    for number, topic in enumerate(order):
        found = next(sources[topic.shows], None)
        if found is None:
            raise DatasetError(f"{data} has too few pictures for {count} edits")
        turn = number // len(topics)
        question = Question(found.picture, topic.prompts[turn % len(topic.prompts)])
        made.append(Wanted(topic, question, found.targets[topic.name], turn, found.other_file))
    return made


def asked(edits: Sequence[Wanted], *, per_kind: int = 1) -> list[Asked]:
    """Every question of every edit; `per_kind` of each kind of wording, in turn."""
    plans = []
    for number, edit in enumerate(edits):
        topic, picture, prompt = edit.topic, edit.question.picture, edit.question.prompt
        plans.append(Asked(edit, RELIABILITY, edit.question))
        for kind, words in topic.wordings.items():
            plans += [
                Asked(edit, kind, Question(picture, text))
                for text in _turns(words, edit, per_kind)
                if text != prompt
            ]
        plans += [
            Asked(edit, CONFUSABLE, Question(picture, text))
            for text in _turns(topic.confusables, edit, 2)
        ]
        plans += [
            Asked(edit, OTHER, Question(picture, _OTHERS[(number + i) % len(_OTHERS)]))
            for i in (2 * edit.turn, 2 * edit.turn + 1)
        ]
        plans.append(Asked(edit, TEXT_ONLY, Question(None, prompt)))
        if edit.other_file is not None:
            plans.append(Asked(edit, OTHER_FILE, Question(edit.other_file, prompt)))
    return plans


@dataclass(frozen=True, slots=True)
class _Source:
    """A picture, what an edit of it says by topic, and another picture of the same."""

    picture: str
    targets: dict[str, str]
    other_file: str | None = None


def _flags(data: Path, names: Sequence[str]) -> Iterator[_Source]:
    """Countries in the file's order, each once; targets are those of its records."""
    found = read_flags(data)
    countries: dict[str, list[FlagEdit]] = {}
    for edit in found.edits:
        countries.setdefault(edit.country, []).append(edit)
    for edits in countries.values():
        said = {edit.fact: edit.target for edit in edits}
        record = edits[0].record
        if all(FACTS[name] in said for name in names):
            yield _Source(
                str(found.root / record.image),
                {name: said[FACTS[name]] for name in names},
                None if edits[0].is_redrawn else str(found.root / record.image_rephrase),
            )


def _emoji(data: Path, names: Sequence[str]) -> Iterator[_Source]:
    """In an order of no meaning, each with another one's name."""
    try:
        found = json.loads((data / _EMOJI).read_text("utf-8"))["emoji"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{data / _EMOJI} cannot be read: {error!r}") from error
    order = random.Random(0).sample(range(len(found)), len(found))
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        yield _Source(str(data / found[here]["file"]), dict.fromkeys(names, found[there]["name"]))


def _emblems(drawn: Path, names: Sequence[str]) -> Iterator[_Source]:
    """Emblems of the `unseen` split, each with the name of a place that it is not of."""
    drawn.mkdir(parents=True, exist_ok=True)
    for number, place in enumerate(strangers()):
        seed = 700 + number
        picture = drawn / f"emblem-{seed}.png"
        if not picture.is_file():
            view = view_of(emblem_from_seed(seed, "unseen"), seed=seed, view=0)
            Image.fromarray(view.image).save(picture)
        yield _Source(str(picture), dict.fromkeys(names, place.place))


def _turns(texts: Sequence[str], edit: Wanted, count: int) -> list[str]:
    """`count` of the texts, each once: those that are due in the edit's turn.

    Prompts take turns as well. Where both are back at the first, the texts move on by one more, so
    that in the end every prompt meets every text.
    """
    turn = edit.turn + edit.turn // math.lcm(len(edit.topic.prompts), len(texts))
    return [texts[(count * turn + i) % len(texts)] for i in range(min(count, len(texts)))]
