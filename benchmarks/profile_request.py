"""Where the time of one edited request goes, part by part: milliseconds of one core.

    python -m benchmarks.profile_request [--requests 32] [--edits 1000]

The same questions are answered without edits, with an edit that acts and a question that was read
before, and with an edit that acts and a question that is new each time. An edit's target is the
model's own answer, so all generate the same tokens. A part's time is its own: what it calls and is
a part too is not counted twice. Timers cost something; the rows are read against each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.edited_rows import EditedRows, forget_questions
from benchmarks.report import table, write
from benchmarks.side_by_side import together
from editing_core.backbones.base import Backbone
from editing_core.backbones.passes import DecoderPasses
from editing_core.backbones.stock import StockBackbone
from editing_core.batching.batch import DecodeBatch
from editing_core.editable_model import EditableModel
from editing_core.edited_pass import EditedPass
from editing_core.experts.memory import Snapshot
from editing_core.generation import GenerationRow, Writer
from editing_core.questions.encoder import QuestionEncoder
from editing_core.questions.known import KnownQuestions
from editing_core.routing.base import RouterBase
from editing_core.routing.wordings import Comparer

PARTS: Sequence[tuple[type, str, str]] = (
    (StockBackbone, "compute_features", "look at the picture"),
    (EditableModel, "prepare", "write the row"),
    (Snapshot, "image_candidates", "filter"),
    (QuestionEncoder, "_encode", "read the question"),
    (KnownQuestions, "judge", "judge it"),
    (Comparer, "__call__", "compare it"),
    (Backbone, "word_states", "its words without the picture"),
    (DecoderPasses, "prefill", "prefill"),
    (RouterBase, "route_each", "decide"),
    (EditedPass, "_fuse", "fuse the experts"),
    (DecoderPasses, "decode", "decode, with experts"),
    (Writer, "take", "choose tokens, make text"),
    (DecodeBatch, "_take", "between two steps"),
)
"""What is timed, and its name in the table."""


class Stopwatch:
    """Seconds of this thread in each part, itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[str] = []
        self._since = time.thread_time()

    def lap(self) -> None:
        now = time.thread_time()
        name = self._inside[-1] if self._inside else "the rest"
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time told apart."""

        @wraps(function)
        def run(*args: Any, **more: Any) -> Any:
            self.lap()
            self._inside.append(name)
            try:
                return function(*args, **more)
            finally:
                self.lap()
                self._inside.pop()

        return run


@contextmanager
def watching() -> Iterator[Stopwatch]:
    """Time `PARTS` for as long as the block runs."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for owner, name, label in PARTS:
            stack.enter_context(patch.object(owner, name, watch.timed(label, getattr(owner, name))))
        watch.lap()
        watch.seconds.clear()
        yield watch
        watch.lap()


def profile(model: EditableModel, rows: Sequence[GenerationRow]) -> dict[str, float]:
    """Milliseconds a request, one after another."""
    with watching() as watch:
        for row in rows:
            together(model, [row])
    return {name: 1000 * spent / len(rows) for name, spent in watch.seconds.items()}


def main() -> None:
    """Measure and print; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--edits", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = EditableModel.load()
    rows = EditedRows.make(model, rows=options.requests, edits=options.edits)
    together(model, rows.edited)
    told = _told(model, rows)
    sys.stdout.write(told + "\n")
    if (options.requests, options.edits) == (32, 1000):
        path = write("profile-request", "Where a request's time goes", [("Part by part", told)])
        sys.stdout.write(f"\nWritten to {path}\n")


def _told(model: EditableModel, rows: EditedRows) -> str:
    unedited, again = profile(model, rows.plain), profile(model, rows.edited)
    forget_questions(model, rows)
    sides = {
        "unedited": unedited,
        "edited, asked before": again,
        "edited, a new question": profile(model, rows.edited),
    }
    lines = [
        [name, *(f"{found.get(name, 0.0):.2f}" for found in sides.values())]
        for name in (*(label for _, _, label in PARTS), "the rest")
    ]
    lines.append(["all", *(f"{sum(found.values()):.2f}" for found in sides.values())])
    return table(["ms a request", *sides], lines)


if __name__ == "__main__":
    main()
