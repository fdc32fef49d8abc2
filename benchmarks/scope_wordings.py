"""Held-out wordings: how people ask about an attribute, and what only looks like it.

{"capital": {"world": "flag", "prompts": [...], "wordings": {"polite": [...], ...},
             "confusables": [...], "others": [...]}, ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parent / "wordings" / "scope.json"


class WordingsError(Exception):
    """The file cannot be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One attribute: `prompts` for edits, `wordings` by kind, and questions that are none of it."""

    name: str
    world: str
    prompts: tuple[str, ...]
    wordings: Mapping[str, tuple[str, ...]]
    confusables: tuple[str, ...]
    others: tuple[str, ...]


def read_wordings(file: Path = SHIPPED) -> dict[str, Asked]:
    """Every attribute by name. Raises `WordingsError`."""
    try:
        found = json.loads(file.read_text("utf-8"))
        return {
            name: Asked(
                name=name,
                world=item["world"],
                prompts=tuple(item["prompts"]),
                wordings={kind: tuple(texts) for kind, texts in item["wordings"].items()},
                confusables=tuple(item["confusables"]),
                others=tuple(item["others"]),
            )
            for name, item in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WordingsError(f"{file} holds no wordings: {error!r}") from error
