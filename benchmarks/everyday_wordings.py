"""Questions in everyday words, out of a JSON file: what an edit is made with and asked in.

    {"capital": {"prompts": ["..."],
                 "wordings": {"polite": ["..."], "short": ["..."], ...},
                 "confusables": ["..."]}, ...}

`prompts` are what edits are made with; `wordings`, by kind, ask the same thing; `confusables` share
their words and ask something else. `shows` says what a question is about (`flags`, `emoji`,
`emblems`) where its name does not: `capital`, `currency`, `continent`, `language` and `name` are
asked of flags, names that begin with `emoji` or `emblem` of those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editing_core.evaluation.datasets.records import DatasetError

PICTURES = ("flags", "emoji", "emblems")
FACTS = {
    "capital": "capital",
    "currency": "currency",
    "continent": "continent",
    "language": "main_language",
    "main_language": "main_language",
    "name": "name",
    "country": "name",
}
"""Questions about flags, by the names of the facts that they ask for."""

_HINT = "See the docstring of benchmarks/everyday_wordings.py for what the file holds."


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that is asked, in many words; `shows` is one of `PICTURES`."""

    name: str
    shows: str
    prompts: tuple[str, ...]
    wordings: dict[str, tuple[str, ...]]
    confusables: tuple[str, ...]


def read_wordings(file: Path) -> list[Topic]:
    """All topics of the file. Raises `DatasetError` naming file, topic and what is wrong."""
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} cannot be read: {error}", hint=_HINT) from error
    if not isinstance(document, dict) or not document:
        raise DatasetError(f"{file} holds no topics", hint=_HINT)
    return [_topic(file, name, found) for name, found in document.items()]


def _topic(file: Path, name: str, found: Any) -> Topic:
    def bad(what: str) -> DatasetError:
        return DatasetError(f"{file}, topic {name!r}: {what}", hint=_HINT)

    def texts(value: Any, field: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise bad(f"{field} is not a list of questions")
        if not all(isinstance(text, str) and text.strip() for text in value):
            raise bad(f"{field} holds something that is no question")
        return tuple(value)

    if not isinstance(found, dict) or not isinstance(found.get("wordings"), dict):
        raise bad("wordings are not there, or not by kind")
    shows = found.get("shows", _shown(name))
    if shows not in PICTURES:
        raise bad(f"what it is asked of is not known; say `shows`: {', '.join(PICTURES)}")
    if shows == "flags" and name not in FACTS:
        raise bad(f"flags are asked for {', '.join(FACTS)}")
    return Topic(
        name,
        shows,
        texts(found.get("prompts"), "prompts"),
        {kind: texts(value, f"wordings.{kind}") for kind, value in found["wordings"].items()},
        texts(found.get("confusables"), "confusables"),
    )


def _shown(name: str) -> str | None:
    if name in FACTS:
        return "flags"
    return next((p for p in PICTURES if name.startswith(p.removesuffix("s"))), None)
