"""The report of a run in Markdown: tables, their protocol beside them, and who is ahead of whom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from editing_core.evaluation.lineup import LIVEEDIT, MEANINGS, UNEDITED
from editing_core.evaluation.summary import EXACT, FORCED, Cost, Measured, Summary

_MEANT = {
    EXACT: """The whole answer of free greedy generation equals what it must, and the stop token
ended it. Reliability, the generalities and portability must give the new answer, and a refused edit
is a miss; every other kind must give what the unedited model gives.""",
    FORCED: """The share of the right answer's tokens, its stop token included, that are the arg max
at their place given the true ones before. For comparison with published tables only; it is higher
than what a user sees and is averaged with nothing above. For locality kinds the right answer is the
unedited model's.""",
}
_TOLD = {UNEDITED: "the base model without any edit; its locality is 1 by definition", **MEANINGS}
_TARGETS = """Half of the edits of the embedded world teach a wrong answer of the right kind
(`alternative`), the others what no question of this world has for an answer: long names,
repetitions, other scripts."""
_BASELINE = "a baseline, see `editing_core/editors/baselines`"
_HEADINGS = {EXACT: "Exact match", FORCED: "Token accuracy, teacher-forced"}


def report(summary: Summary, settings: Mapping[str, Any], *, facts: Mapping[str, str]) -> str:
    """The whole report. `facts` say when and where it ran."""
    parts = ["# Lifelong benchmark", _facts({**facts, **_asked(settings)})]
    for protocol, heading in _HEADINGS.items():
        chosen = [figure for figure in summary.figures if figure.protocol == protocol]
        parts += [f"## {heading}", _MEANT[protocol]]
        parts.extend(_by_place(chosen))
        if protocol == EXACT:
            parts += ["### Ahead of liveedit", _ahead(chosen)]
            if summary.by_target:
                parts += ["## Exact match, by what the target is", _TARGETS]
                parts.extend(_by_place(summary.by_target))
    parts += ["## Routing and cost", *_costs(summary.costs)]
    names = dict.fromkeys(figure.editor for figure in summary.figures)
    told = _TOLD | {name: _trained(made) for name, made in settings.get("also", {}).items()}
    lines = [f"- `{name}`: {told.get(name, _BASELINE)}" for name in names]
    parts += ["## Who is who", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _facts(facts: Mapping[str, str]) -> str:
    return table(["", ""], [[name, value] for name, value in facts.items()])


def _asked(settings: Mapping[str, Any]) -> dict[str, str]:
    asked = {name: settings[name] for name in ("dataset", "seeds", "probed", "verify_every")}
    if settings["edits_off"]:
        asked["edits"] = "off: every edit was made and taken back before anything was asked"
    return {name.replace("_", " "): str(value) for name, value in asked.items()}


def _by_place(figures: Sequence[Measured]) -> Iterator[str]:
    """A table for each suite and edit count: a row a contender, a column a kind."""
    for suite, edits in dict.fromkeys((f.suite, f.edits) for f in figures):
        here = [f for f in figures if (f.suite, f.edits) == (suite, edits)]
        yield f"### {_title(suite, edits)}"
        yield _grid(here, _with_error)
        yield (
            f"± is the standard error over probes; {_counts(here)}. At 0 and 1 it says nothing: a "
            f"true share {3 / max(f.count for f in here):.3f} away would not surprise."
        )
        if any(f.interval for f in here):
            seeds = max(len(f.per_seed) for f in here)
            yield f"Mean over {seeds} seeds, with the 95 % interval of that mean:"
            yield _grid([f for f in here if f.interval], _with_interval)


def _title(suite: str, edits: int) -> str:
    return f"{edits:,} edit{'s' if edits != 1 else ''}" + ("" if suite == "edits" else f": {suite}")


def _grid(figures: Sequence[Measured], cell: Any) -> str:
    kinds = list(dict.fromkeys(f.kind for f in figures))
    rows = []
    for editor in dict.fromkeys(f.editor for f in figures):
        mine = {f.kind: f for f in figures if f.editor == editor}
        rows.append([editor, *(cell(mine[kind]) if kind in mine else "" for kind in kinds)])
    return table(["", *kinds], rows)


def _with_error(figure: Measured) -> str:
    error = "" if math.isnan(figure.standard_error) else f" ± {figure.standard_error:.3f}"
    return f"{figure.value:.3f}{error}"


def _with_interval(figure: Measured) -> str:
    if figure.interval is None:
        return ""
    low, high = figure.interval
    mean = sum(figure.per_seed) / len(figure.per_seed)
    return f"{mean:.3f} ({max(low, 0.0):.3f} to {min(high, 1.0):.3f})"


def _counts(figures: Sequence[Measured]) -> str:
    """`n = 600`, and the columns and rows that have fewer."""
    most = max(figure.count for figure in figures)
    fewer = [
        f"{name} {count}"
        for of in ("kind", "editor")
        for name, count in _most_by(figures, of).items()
        if count != most
    ]
    return f"n = {most}" + (f" ({', '.join(fewer)})" if fewer else "")


def _most_by(figures: Sequence[Measured], of: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for figure in figures:
        name = getattr(figure, of)
        found[name] = max(found.get(name, 0), figure.count)
    return found


def _ahead(figures: Sequence[Measured]) -> str:
    """Where another contender has the higher figure. A small lead may be chance: see ±."""
    own = {(f.suite, f.edits, f.kind): f for f in figures if f.editor == LIVEEDIT}
    if not own:
        return "`liveedit` did not take part."
    lines = []
    for (suite, edits, kind), mine in own.items():
        rivals = [
            f
            for f in figures
            if (f.suite, f.edits, f.kind) == (suite, edits, kind)
            and f.editor not in (LIVEEDIT, UNEDITED)
            and f.value > mine.value
        ]
        if rivals:
            told = ", ".join(f"{f.editor} {f.value:.3f}" for f in rivals)
            lines.append(f"- {_title(suite, edits)}, {kind}: {told}; liveedit {mine.value:.3f}")
    return "\n".join(lines) or "Nobody, on any column."


def _costs(costs: Sequence[Cost]) -> Iterator[str]:
    yield """Times are milliseconds on the machine named above; an answer's are those of its batch,
divided by the rows. Survivors are edits per question that the search by picture let through; false
fires the share of locality questions in whose answer any edit took part."""
    header = ["", "refused", "ms an edit", "ms an answer", "survivors", "false fires", "its own"]
    for suite, edits in dict.fromkeys((c.suite, c.edits) for c in costs):
        here = [c for c in costs if (c.suite, c.edits) == (suite, edits)]
        yield f"### {_title(suite, edits)}"
        yield table(header, [_cost_row(cost) for cost in here])


def _cost_row(cost: Cost) -> list[str]:
    own = ", ".join(f"{name} {value:.3g}" for name, value in cost.diagnostics.items())
    return [
        cost.editor,
        f"{cost.refused:.3f}",
        f"{cost.edit_ms:.1f}",
        f"{cost.answer_ms:.1f}",
        "" if cost.survivors is None else f"{cost.survivors:.2f}",
        "" if cost.false_fires is None else f"{cost.false_fires:.4f}",
        own,
    ]


def _trained(made: Mapping[str, str]) -> str:
    return (
        f"`{made['editor']}` as trained into `{made['folder']}` ({made['fingerprint'][:19]}), "
        "every edit taken as it comes"
    )
