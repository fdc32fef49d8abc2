"""Questions of everyday life, for training the router and the editors on more than emblems.

People ask a vision-language model about maps and mugs. What such a question *means* is a topic and
something about it (the currency of a country, the price of a product); how it is worded is open.
`everyday.yaml` gives every attribute nouns, which fit common frames ("What is the {noun} of
{it}?"), and whole sentences of its own, and every topic several names for the thing shown. Two
wordings of one attribute are the same question, two attributes of one topic near neighbours.

Nothing is answered here: the base model knows none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from editing_core.heraldry.questions import UNKNOWN, Question

_WORDINGS = 5


@dataclass(frozen=True, slots=True)
class Attribute:
    """`nouns` go into frames; `sentences` have `{it}` where the thing is named."""

    name: str
    nouns: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """`things` name what the picture shows."""

    name: str
    things: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@cache
def everyday_topics() -> tuple[tuple[str, ...], tuple[Topic, ...]]:
    """The frames and the topics of `everyday.yaml`."""
    path = Path(__file__).with_suffix(".yaml")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    topics = tuple(
        Topic(
            name,
            tuple(topic["things"]),
            tuple(
                Attribute(key, tuple(words["nouns"]), tuple(words.get("sentences", ())))
                for key, words in topic["attributes"].items()
            ),
        )
        for name, topic in document["topics"].items()
    )
    return tuple(document["frames"]), topics


def everyday_questions(rng: np.random.Generator, count: int) -> list[Question]:
    """`count` neighbouring questions: attributes of one topic, each in several wordings."""
    _, topics = everyday_topics()
    topic = topics[int(rng.integers(len(topics)))]
    order = rng.permutation(len(topic.attributes))[:count]
    return [_question(topic, topic.attributes[int(i)], rng) for i in order]


def everyday_pairs(rng: np.random.Generator, count: int) -> list[tuple[str, tuple[str, str]]]:
    """`count` attributes of one topic, each with two wordings of it."""
    _, topics = everyday_topics()
    topic = topics[int(rng.integers(len(topics)))]
    order = rng.permutation(len(topic.attributes))[:count]
    chosen = [topic.attributes[int(i)] for i in order]
    return [(a.name, (_worded(topic, a, rng), _worded(topic, a, rng))) for a in chosen]


def _question(topic: Topic, attribute: Attribute, rng: np.random.Generator) -> Question:
    """The first wording is the same whenever the question is: it is what identifies it."""
    wordings = {f"About {topic.name}: what is the {attribute.nouns[0]}?": None}
    while len(wordings) < _WORDINGS:
        wordings[_worded(topic, attribute, rng)] = None
    return Question(
        kind=f"{topic.name}: {attribute.name}",
        group="knowledge",
        answer=UNKNOWN,
        alternatives=(),
        wordings=tuple(wordings),
        held_out_wordings=(),
    )


def _worded(topic: Topic, attribute: Attribute, rng: np.random.Generator) -> str:
    frames, _ = everyday_topics()
    is_framed = not attribute.sentences or rng.random() < 0.5
    sentences = frames if is_framed else attribute.sentences
    noun = attribute.nouns[int(rng.integers(len(attribute.nouns)))]
    thing = topic.things[int(rng.integers(len(topic.things)))]
    text = sentences[int(rng.integers(len(sentences)))].format(noun=noun, it=thing)
    return text[0].upper() + text[1:]
