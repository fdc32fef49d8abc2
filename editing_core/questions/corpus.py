"""The corpus of questions: what people ask about pictures, in their words, and look-alikes.

One JSON object a line, one intent each:

    {"topic", "intent", "wordings": [12], "confusables": [10]}

The twelve wordings ask the same, in a fixed order of kinds (`KINDS`). The confusables are other
questions about the same picture that share words or shape with them. Intents of one topic are near
neighbours, and none asks what another does; one with more wordings takes several lines of its
name. Lines of `shipped/further` have wordings only. Written by hand; topics, not sentences, are
split into what is trained on and what is held out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from editing_core.errors import CheckpointCorrupt

SHIPPED = Path(__file__).parent / "shipped"
FURTHER = SHIPPED / "further"

Split = Literal["train", "validation", "test"]

KINDS = (
    "short",
    "short",
    "long",
    "long",
    "polite",
    "typing errors",
    "lower case",
    "imperative",
    "other order",
    "other words",
    "other words",
    "not a native speaker",
)
"""The kind of each wording, by its place."""

PROMPTS = (4, 7, 8, 11)
"""Places of wordings that stand for an edit's prompt in measurements: plain whole sentences."""

NUM_CONFUSABLES = 10


@dataclass(frozen=True, slots=True)
class Intent:
    """One question with its wordings, in the order of `KINDS`, and its confusables."""

    topic: str
    name: str
    wordings: tuple[str, ...]
    confusables: tuple[str, ...]


def read_corpus(folder: Path = SHIPPED) -> tuple[Intent, ...]:
    """Every intent of the `.jsonl` files of a folder, by file and line.

    Raises `CheckpointCorrupt`, naming file and line, where one is not what the module says.
    """
    found: list[Intent] = []
    for file in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            found.append(_intent(line, f"{file}:{number}"))
    if not found:
        raise CheckpointCorrupt(f"{folder} holds no questions: no .jsonl file is there")
    return tuple(found)


def read_further(folder: Path = FURTHER) -> tuple[Intent, ...]:
    """Further wordings of intents of the corpus, by file and line; they have no confusables.

    Raises `CheckpointCorrupt`, naming file and line.
    """
    return tuple(
        _intent(line, f"{file}:{number}", confusables=0)
        for file in sorted(folder.glob("*.jsonl"))
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
    )


def split_of(topic: str) -> Split:
    """Where a topic belongs: one in ten to test, one in ten to validation, by its name alone."""
    number = int(hashlib.sha256(topic.encode()).hexdigest(), 16) % 10
    return "test" if number == 0 else "validation" if number == 1 else "train"


def by_topic(intents: Iterable[Intent], split: Split) -> dict[str, list[Intent]]:
    """The intents of one split, by topic, in the order of the names of topics."""
    found: dict[str, list[Intent]] = {}
    for intent in intents:
        if split_of(intent.topic) == split:
            found.setdefault(intent.topic, []).append(intent)
    return dict(sorted(found.items()))


def _intent(line: str, where: str, *, confusables: int = NUM_CONFUSABLES) -> Intent:
    try:
        item = json.loads(line)
        intent = Intent(
            str(item["topic"]),
            str(item["intent"]),
            tuple(map(str, item["wordings"])),
            tuple(map(str, item["confusables"] if confusables else ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"{where} is no intent: {error!r}") from error
    if len(intent.wordings) != len(KINDS) or len(intent.confusables) != confusables:
        needs = f"{len(KINDS)} wordings and {confusables} confusables"
        raise CheckpointCorrupt(f"{where} needs {needs}")
    if not all(text.strip() for text in (*intent.wordings, *intent.confusables)):
        raise CheckpointCorrupt(f"{where} has an empty question")
    return intent
