"""Stock questions: what is asked of an edit's own picture to see that the edit leaves it alone.

A checkpoint may bring its own as `stock_questions.json`: a list of `{"kind", "prompt"}`, each of
another kind, the most telling first. Others get a list that suits any picture.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from editing_core.checkpoint import EMBEDDED, CheckpointLayout
from editing_core.errors import CheckpointCorrupt

FILE_NAME = "stock_questions.json"
_SHIPPED = Path(__file__).parent / "configs" / "stock_questions"


@dataclass(frozen=True, slots=True)
class StockQuestion:
    """One question; `kind` says what about, in a word or two."""

    kind: str
    prompt: str


def default_questions() -> tuple[StockQuestion, ...]:
    """Those that suit any picture."""
    return read_questions(_SHIPPED / "default.json")


def questions_of(layout: CheckpointLayout) -> tuple[StockQuestion, ...]:
    """The checkpoint's own; else, for the embedded world, those about it; else the default ones.

    Raises `CheckpointCorrupt`, naming the file, when the checkpoint's own cannot be read.
    """
    own = layout.root / FILE_NAME
    if own.is_file():
        return read_questions(own)
    return (
        read_questions(_SHIPPED / "heraldry.json")
        if layout.root == EMBEDDED
        else (default_questions())
    )


def read_questions(path: Path) -> tuple[StockQuestion, ...]:
    """Read one list. Raises `CheckpointCorrupt` unless it holds questions of distinct kinds."""
    try:
        found = tuple(StockQuestion(**item) for item in json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointCorrupt(f"{path} is no list of stock questions: {error}") from error
    for question in found:
        if not all(isinstance(t, str) and t.strip() for t in (question.kind, question.prompt)):
            raise CheckpointCorrupt(f"{path} has a question without words")
    if len({question.kind for question in found}) != len(found):
        raise CheckpointCorrupt(f"{path} has two questions of one kind")
    return found
