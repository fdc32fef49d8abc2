"""The page that `benchmarks.large_model` writes: the same lines, measured or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.report import table

EDITORS = ("fitted", "liveedit", "liveedit-paper")
BATCHES = (1, 8)
UNEDITED, NONE_FIRED = "unedited", "edits in force, none fires"
FIRED = {editor: f"one edit of {editor} fires" for editor in EDITORS}
SIDES = (UNEDITED, NONE_FIRED, *FIRED.values())

SECONDS, HELD, PEAK = "seconds", "held after it, GiB", "peak, GiB"
MEDIAN, WORST = "median, s", "worst, s"
STEPS, HOLDS = "gradient steps, median", "target is the answer"
RATE, RATIO = "tokens/s", "against unedited"
HELD_EDITS, ACTED = "edits in force", "rows on which one fired"

STAGES, EDITS, ANSWERS, HTTP = (
    "Time and memory of each stage",
    "Making an edit",
    "Answering",
    "Over HTTP",
)
BUILDING, ROUTER, FITTED, GENERATORS, ANSWERING = (
    "building the model, no disk read",
    "first start: router of frozen features",
    "first start: fitted",
    "LiveEdit's generators, untrained",
    "answering, every side and batch",
)
APPLIED = "edits applied"
GENERATE = {"on": "POST /generate, editing on", "off": "POST /generate, editing off"}

Cells = dict[str, float | str]
Figures = dict[str, dict[str, Cells]]
"""Section, line, column. Memory that a device cannot tell is `not measured`."""

_SAID = (
    "LLaVA 1.5 with random weights, drawn on the device. Shapes are the real model's, and so are "
    "times and memory; what it answers is noise, and how well edits hold is measured elsewhere. "
    "`python -m benchmarks.large_model` measures all of it."
)
_LINES = {
    STAGES: (
        (SECONDS, HELD, PEAK),
        (BUILDING, ROUTER, FITTED, GENERATORS, ANSWERING),
        "Memory is what torch allocated on the device; the CUDA context comes on top.",
    ),
    EDITS: (
        (MEDIAN, WORST, STEPS, HOLDS, PEAK),
        EDITORS,
        (
            "From picture and words to the artifact, each edit about another picture; a first one "
            "warms up and is left out. `liveedit` and `liveedit-paper` (rank 4, queries a quarter "
            "as wide as the model) are **untrained**: how long they take is measured, what they "
            "say is not."
        ),
    ),
    ANSWERS: (
        (RATE, RATIO, HELD_EDITS, ACTED),
        tuple(f"batch {batch}, {side}" for batch in BATCHES for side in SIDES),
        (
            "Prefill and decoding of a fixed number of tokens, the same pictures and question on "
            "every side; features of the pictures are at hand. Sides take turns within each "
            "round, and a ratio is the median over rounds. Rows ask about two pictures in turn."
        ),
    ),
    HTTP: (
        (SECONDS, APPLIED),
        (*(f"POST /edits, {editor}" for editor in EDITORS[:2]), *GENERATE.values()),
        (
            "One request each, unverified, to the application on a socket of this machine: that it "
            "serves such a model, not how fast."
        ),
    ),
}


def page(figures: Figures, facts: Mapping[str, str], *, why: str = "") -> str:
    """The page in Markdown. A line without figures says `not run`, and `why` should tell why."""
    parts = ["# A large model of random weights", _SAID, *([why] if why else [])]
    parts.append(table(["", ""], [[name, told] for name, told in facts.items()]))
    for heading, (columns, lines, about) in _LINES.items():
        found = figures.get(heading, {})
        rows = [[line, *(_told(found.get(line), c) for c in columns)] for line in lines]
        parts.append(f"## {heading}\n\n{about}\n\n{table(['', *columns], rows)}")
    return "\n\n".join(parts) + "\n"


def write(path: Path, figures: Figures, facts: Mapping[str, str]) -> None:
    """The page at `path`, and the same figures as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(figures, facts), encoding="utf-8")
    document = {"facts": dict(facts), "figures": figures}
    path.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _told(cells: Cells | None, column: str) -> str:
    value = None if cells is None else cells.get(column)
    if value is None:
        return "not run"
    return value if isinstance(value, str) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
