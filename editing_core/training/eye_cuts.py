"""Where the gates stand: emblems keep their CLIP's key, and most of them need no network."""

from __future__ import annotations

from torch import Tensor

from editing_core.eyes.eyes import Gate
from editing_core.training.eye_gate import Sights

_SLACK = 9.5
_SKIPPED = 0.6
_ROUNDED = 0.02
_LOST = 2e-3
"""The share of emblem views that the second gate may lose where it was calibrated."""


def gate_cut(gate: Gate, known: Tensor) -> float:
    """A score that every emblem reaches as it is, less some slack: none may lose its CLIP's key.

    `known` is what `glances` gives. One that is shown in grey, or in a window, may.
    """
    return float(gate(known[::2]).min()) - _SLACK


def sure_score(gate: Gate, known: Sights) -> float:
    """The score above which the network is not asked: `_SKIPPED` of plain emblem views are."""
    return float(gate(known.glances[:, :2].flatten(0, 1).float()).quantile(1.0 - _SKIPPED))


def second_cut(
    gate: Gate, second: Gate, known: Sights, foreign: Sights, *, sure: float, tau: float
) -> float:
    """Midway from the highest score of other pictures to the emblems' lowest.

    That is the lowest but for `_LOST` of the views that pass with the first gate. Where the two
    meet, the emblems' alone counts.
    """
    passes, score = _passing(gate, known, tau)
    asked = second(known.features.float().flatten(0, 1)).view_as(score)[passes & (score <= sure)]
    lost = int(_LOST * int(passes.sum()))
    highest = float(second(foreign.features.float().flatten(0, 1)).max())
    if len(asked) <= lost:
        return highest
    lowest = float(asked.sort().values[lost]) - _ROUNDED
    return min(lowest, (lowest + highest) / 2)


def second_gate_figures(
    gate: Gate, second: Gate, known: Sights, foreign: Sights, *, sure: float, tau: float
) -> dict[str, float]:
    """Shares: views that pass today and no more, emblems without the network, strangers told."""
    passes, score = _passing(gate, known, tau)
    agrees = second(known.features.float().flatten(0, 1)).view_as(score) > 0
    others = gate(foreign.glances.float().flatten(0, 1))
    own = second(foreign.features.float().flatten(0, 1)) > 0
    return {
        "gates: emblem views that pass with the first": float(passes.float().mean()),
        "gates: of these lost by the second": float(
            (passes & (score <= sure) & ~agrees).sum() / passes.sum()
        ),
        "gates: emblems that need no network": float((score[:, :2] > sure).float().mean()),
        "gates: strangers foreign to the first": float((others <= 0).float().mean()),
        "gates: strangers foreign to both": float(
            ((others <= 0) | ((others <= sure) & ~own)).float().mean()
        ),
        "gates: strangers the first is sure of": float((others > sure).float().mean()),
    }


def _passing(gate: Gate, known: Sights, tau: float) -> tuple[Tensor, Tensor]:
    """Of each view whether it is taken for its emblem's plain one today; the gate's score."""
    score = gate(known.glances.float().flatten(0, 1)).view(known.glances.shape[:2])
    alike = (known.keys[:, :1] * known.keys).sum(-1) >= tau
    return alike & (score > 0) & (score[:, :1] > 0), score
