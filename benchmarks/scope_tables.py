"""Tallies of probes, and tables of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from editing_core.evaluation.tables import table


@dataclass(slots=True)
class Tally:
    """Of one kind of probe: how many gave what was wanted, and what the others did.

    `hits` gave the edit's target, or the base model's answer where it must stay. `wrong` gave
    another edit's target, `mixed` what is neither a target nor the base model's answer. `fired`
    counts rows in which the edit in question acted, or any where none is. `off` counts rows right
    with editing off.
    """

    name: str
    must_change: bool
    probes: int = 0
    hits: int = 0
    wrong: int = 0
    mixed: int = 0
    fired: int = 0
    off: int = 0
    extra: dict[str, float] = field(default_factory=dict)


def render(tallies: Iterable[Tally]) -> str:
    """A Markdown table, a line each."""
    head = ["probe", "n", "right", "another edit's answer", "neither", "the edit acts", "unedited"]
    rows = []
    for tally in tallies:
        if tally.extra:
            told = ", ".join(f"{name} {share:.3f}" for name, share in tally.extra.items())
            rows.append([tally.name, str(tally.probes), told, "", "", "", ""])
            continue
        share = [tally.hits, tally.wrong, tally.mixed, tally.fired, tally.off]
        cells = [f"{100 * count / max(1, tally.probes):.1f} %" for count in share]
        rows.append([tally.name, str(tally.probes), *cells])
    return table(head, rows)


def summary(tallies: Iterable[Tally]) -> str:
    """All wordings together, and all that must stay together."""
    lines = []
    for must_change, name in ((True, "in other words, right"), (False, "must stay, an edit acts")):
        chosen = [t for t in tallies if t.must_change is must_change and not t.extra]
        probes = sum(t.probes for t in chosen if t.name != "its own prompt")
        count = sum(
            t.hits if must_change else t.fired for t in chosen if t.name != "its own prompt"
        )
        if probes:
            lines.append(f"{name}: {100 * count / probes:.1f} % of {probes}")
    return "; ".join(lines)
