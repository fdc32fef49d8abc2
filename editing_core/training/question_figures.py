"""How well keys tell the same question from a confusable, and the line and thresholds that follow.

Measured on whole topics that were not trained on. A pair is *wanted* where an edit's prompt meets
another wording of its intent, *unwanted* where it meets a confusable of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.questions.corpus import KINDS, PROMPTS, Intent
from editing_core.questions.encoder import GateLine
from editing_core.routing.calibration import fit_gate

Keys = Callable[[Sequence[str]], Tensor]
"""Texts to keys `[texts, dim]`, each of length 1."""

FALSE_FIRES = (0.02, 0.05, 0.08, 0.10, 0.20)
"""Shares of confusables that fire, at which hits are reported."""

_POINTS = {"precision": 0.03, "balanced": 0.08, "recall": 0.20}
_MOST_WRONG, _EDITS_OF_A_PICTURE = 0.01, 4
_LEADS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Cosines of pairs: `wanted [n]` with `kinds`, `unwanted [m]`.

    `among` are pictures with a few edits of neighbouring questions each: cosines
    `[queries, edits]`, and whose question each query is, `[queries]`.
    """

    wanted: NDArray[np.float32]
    kinds: tuple[str, ...]
    unwanted: NDArray[np.float32]
    among: tuple[tuple[NDArray[np.float32], NDArray[np.int64]], ...]


def compare(keys: Keys, topics: Mapping[str, Sequence[Intent]]) -> Compared:
    """Every prompt of every intent against its other wordings, its confusables, its neighbours."""
    wanted: list[NDArray[np.float32]] = []
    unwanted: list[NDArray[np.float32]] = []
    among: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
    kinds: list[str] = []
    for intents in topics.values():
        count = len(intents)
        words = keys([w for i in intents for w in i.wordings]).view(count, len(KINDS), -1)
        others = keys([c for i in intents for c in i.confusables]).view(count, -1, words.shape[-1])
        for place in PROMPTS:
            prompts = words[:, place]
            own = (words * prompts[:, None]).sum(-1).numpy()
            for k, kind in enumerate(KINDS):
                if k != place:
                    wanted.append(own[:, k])
                    kinds += [kind] * count
            unwanted.append((others * prompts[:, None]).sum(-1).numpy().ravel())
            kept = [k for k in range(len(KINDS)) if k != place]
            for start in range(0, count, _EDITS_OF_A_PICTURE):
                own_words = words[start : start + _EDITS_OF_A_PICTURE, kept]
                own_prompts = prompts[start : start + _EDITS_OF_A_PICTURE]
                queries = own_words.reshape(-1, words.shape[-1])
                owner = np.repeat(np.arange(len(own_prompts)), len(kept))
                among.append(((queries @ own_prompts.T).numpy(), owner))
    return Compared(np.concatenate(wanted), tuple(kinds), np.concatenate(unwanted), tuple(among))


def cut_at(compared: Compared, share: float) -> float:
    """The cosine that this share of confusables passes."""
    return float(np.quantile(compared.unwanted, 1.0 - share))


def hits(compared: Compared, cut: float) -> dict[str, float]:
    """The share of wanted pairs above `cut`: over all, then by kind."""
    passed = compared.wanted > cut
    kinds = np.array(compared.kinds)
    by_kind = {kind: float(passed[kinds == kind].mean()) for kind in dict.fromkeys(KINDS)}
    return {"all": float(passed.mean()), **by_kind}


def curve(compared: Compared) -> dict[str, float]:
    """Hits at each share of `FALSE_FIRES`."""
    return {f"{f:.2f}": hits(compared, cut_at(compared, f))["all"] for f in FALSE_FIRES}


def gate_line(compared: Compared) -> GateLine:
    """The line through these cosines, with thresholds by preference and the lead that is needed."""
    slope, bias = fit_gate(compared.wanted, compared.unwanted)

    def gate(share: float) -> float:
        score = slope * cut_at(compared, share) + bias
        return round(float(1.0 / (1.0 + np.exp(-score))), 4)

    rho = {name: gate(share) for name, share in _POINTS.items()}
    cut = cut_at(compared, _POINTS["balanced"])
    lead = next(
        (lead for lead in _LEADS if wrong_edits(compared, cut, lead / slope) <= _MOST_WRONG),
        _LEADS[-1],
    )
    return GateLine(round(slope, 4), round(bias, 4), rho, lead)


def wrong_edits(compared: Compared, cut: float, lead: float) -> float:
    """Of queries among a few edits of their topic, the share that another intent's edit answers.

    An edit answers where it is the best, passes `cut` and leads the next by `lead` (cosines).
    """
    wrong = total = 0
    for cosines, owner in compared.among:
        ranked = torch.from_numpy(cosines).topk(min(2, cosines.shape[1]), dim=1)
        best, second = ranked.values[:, 0].numpy(), ranked.values[:, -1].numpy()
        # A picture with one edit has no second.
        fires = (best > cut) & ((best - second >= lead) | (cosines.shape[1] == 1))
        wrong += int((fires & (ranked.indices[:, 0].numpy() != owner)).sum())
        total += len(owner)
    return wrong / max(1, total)
