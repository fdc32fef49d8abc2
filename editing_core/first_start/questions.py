"""Questions that suit any picture, each in several wordings, shipped to measure backbones with.

Those that stand next to each other are near neighbours and share a `family`: "What is on the left?"
beside "What is on the right?". Every other one goes into a router's statistics, the rest calibrate
it, so that no threshold is set on words that made the keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SHIPPED = Path(__file__).parents[1] / "configs" / "first_start" / "questions.json"


@dataclass(frozen=True, slots=True)
class ShippedQuestion:
    """One question. `answer` is a plausible one, which says nothing of any picture."""

    kind: str
    family: str
    answer: str
    wordings: tuple[str, ...]


@cache
def shipped_questions() -> tuple[ShippedQuestion, ...]:
    """All of them, in the file's order."""
    return tuple(
        ShippedQuestion(**{**item, "wordings": tuple(item["wordings"])})
        for item in json.loads(_SHIPPED.read_text("utf-8"))
    )


def for_statistics() -> tuple[ShippedQuestion, ...]:
    """The half that makes keys."""
    return shipped_questions()[::2]


def for_calibration() -> tuple[ShippedQuestion, ...]:
    """The half that sets thresholds."""
    return shipped_questions()[1::2]
