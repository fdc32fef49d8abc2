"""Pictures of a run: every metric, and what it costs, against the number of edits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from editing_core.evaluation.lineup import LIVEEDIT, UNEDITED
from editing_core.evaluation.summary import EXACT, FORCED, Cost, Measured, Summary

_MARKERS = "os^vD<>phX*P"
_COLUMNS = 3
_FIXED = {UNEDITED: "black", LIVEEDIT: "crimson"}
Point = tuple[int, float, float]
"""Edits, value, half the height of its bar."""


def draw_plots(summary: Summary, folder: Path) -> list[Path]:
    """Write `exact-match.png`, `token-accuracy.png` and `cost.png`; which ones could be drawn.

    Only figures at more than one edit count make a curve, so sets of edits that meet draw none.
    """
    counts = {(f.suite, f.edits) for f in summary.figures}
    suites = {suite for suite, _ in counts if sum(s == suite for s, _ in counts) > 1}
    figures = [f for f in summary.figures if f.suite in suites]
    costs = [c for c in summary.costs if c.suite in suites]
    if not figures:
        return []
    # Colours by contender, the same in every picture.
    names = list(dict.fromkeys(f.editor for f in figures))
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _metrics(figures, EXACT, names, folder / "exact-match.png"),
        _metrics(figures, FORCED, names, folder / "token-accuracy.png"),
        _costs(costs, names, folder / "cost.png"),
    ]


def _metrics(figures: Sequence[Measured], protocol: str, names: Sequence[str], path: Path) -> Path:
    chosen = [f for f in figures if f.protocol == protocol]
    kinds = list(dict.fromkeys(f.kind for f in chosen))
    curves = {
        kind: {
            name: [
                (f.edits, f.value, 0.0 if math.isnan(f.standard_error) else f.standard_error)
                for f in chosen
                if (f.editor, f.kind) == (name, kind)
            ]
            for name in names
        }
        for kind in kinds
    }
    return _save(f"{protocol}; bars: standard error", curves, path, ceiling=1.03)


def _costs(costs: Sequence[Cost], names: Sequence[str], path: Path) -> Path:
    sides: dict[str, Callable[[Cost], float | None]] = {
        "milliseconds an answer": lambda c: c.answer_ms,
        "milliseconds an edit": lambda c: None if c.editor == UNEDITED else c.edit_ms,
        "survivors per question": lambda c: c.survivors,
        "false fires per locality question": lambda c: c.false_fires,
        "edits refused": lambda c: c.refused,
    }
    curves = {
        title: {
            name: [
                (cost.edits, value, 0.0)
                for cost in costs
                if cost.editor == name and (value := of(cost)) is not None
            ]
            for name in names
        }
        for title, of in sides.items()
    }
    return _save("cost and routing", curves, path)


def _save(
    title: str,
    curves: dict[str, dict[str, list[Point]]],
    path: Path,
    *,
    ceiling: float | None = None,
) -> Path:
    rows = -(-len(curves) // _COLUMNS)
    picture = Figure(figsize=(4.0 * _COLUMNS, 2.7 * rows + 1.0), layout="constrained")
    axes = picture.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, lines) in zip(axes, curves.items(), strict=False):
        _panel(axis, name, lines, ceiling)
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    picture.suptitle(title, fontsize=10)
    picture.savefig(path, dpi=130)
    return path


def _panel(axis: Axes, title: str, lines: dict[str, list[Point]], ceiling: float | None) -> None:
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    for number, (name, points) in enumerate(lines.items()):
        axis.errorbar(
            [edits for edits, _, _ in points],
            [value for _, value, _ in points],
            yerr=[bar for _, _, bar in points],
            label=name,
            color=_FIXED.get(name, colours[number % len(colours)]),
            linestyle=":" if name == UNEDITED else "-",
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=3.5,
            linewidth=2.2 if name == LIVEEDIT else 1.2,
            zorder=4 if name == LIVEEDIT else 3,
        )
    axis.set_xscale("log")
    if title.startswith("milliseconds"):
        axis.set_yscale("log")
    axis.set_xlabel("edits", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    if ceiling is not None:
        axis.set_ylim(-0.03, ceiling)
