"""Figures with their marks, and the tables they are shown in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured rate.

    `goal` and `better` say what counts as reached; a figure without a goal is only reported.
    `count` is how many probes it stands on.
    """

    name: str
    value: float
    count: int
    goal: float | None = None
    better: Literal["high", "low"] = "high"
    protocol: str = "exact match"

    @property
    def is_reached(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "high" else self.value <= self.goal

    @property
    def standard_error(self) -> float:
        """Of a rate over `count` independent probes."""
        spread = max(0.0, self.value * (1 - self.value))
        return math.sqrt(spread / self.count) if self.count else math.nan


def rate(name: str, hits: Sequence[bool], **marks: object) -> Figure:
    """The share of hits, as a figure."""
    value = sum(hits) / len(hits) if hits else math.nan
    return Figure(name, value, len(hits), **marks)  # type: ignore[arg-type]


def as_markdown(figures: Sequence[Figure]) -> str:
    """A table with goals and whether they are reached."""
    lines = ["| figure | measured | ± | probes | goal | reached |", "|---|---|---|---|---|---|"]
    for figure in figures:
        sign = "" if figure.goal is None else (">= " if figure.better == "high" else "<= ")
        goal = "" if figure.goal is None else f"{sign}{figure.goal:g}"
        reached = {None: "", True: "yes", False: "no"}[figure.is_reached]
        lines.append(
            f"| {figure.name} | {figure.value:.4f} | {figure.standard_error:.4f} | {figure.count} "
            f"| {goal} | {reached} |"
        )
    return "\n".join(lines)


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """The same figures for programs."""
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
