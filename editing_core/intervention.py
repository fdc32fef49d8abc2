"""From the experts that a row selected to what happens to its hidden states.

Each row of a batch has experts of its own, fused once at prefill and reused at every decode step.
A row that selected none is not touched, and rows that an intervention's positions leave out keep
their bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from editing_core.states import Intervention, Norm
from editing_core.types import EditArtifact, Rows

Experts = Sequence[tuple[EditArtifact, float]]
Fused = Mapping[int, tuple[Intervention, ...]]
"""One row's interventions by edit layer."""

_KIND = "kind"
_ALIGNED = "aligned"


class FusesExperts(Protocol):
    """What is needed of an editor here."""

    @property
    def norms(self) -> Mapping[str, Norm]: ...

    def intervention(self, experts: Experts, *, norms: Mapping[str, Norm]) -> Intervention: ...


def fuse(
    selected: Experts, editors: Mapping[str, FusesExperts]
) -> dict[int, tuple[Intervention, ...]]:
    """Fuse one row's experts, layer by layer.

    Aligned experts share one softmax whichever editor made them, each read by the norm of its own;
    others are fused by their own editor, and the residuals add up. Raises `KeyError` when an
    artifact's editor is not loaded.
    """
    groups: dict[tuple[int, str], list[tuple[EditArtifact, float]]] = {}
    for artifact, weight in selected:
        kind = artifact.metadata.get(_KIND, "")
        group = _ALIGNED if kind == _ALIGNED else f"{artifact.editor}/{kind}"
        groups.setdefault((artifact.edit_layer, group), []).append((artifact, weight))
    norms = {name: norm for editor in editors.values() for name, norm in editor.norms.items()}
    fused: dict[int, tuple[Intervention, ...]] = {}
    for (layer, _), experts in groups.items():
        editor = editors[experts[0][0].editor]
        fused[layer] = (*fused.get(layer, ()), editor.intervention(experts, norms=norms))
    return fused


def apply(
    hidden: Tensor,
    rows: Mapping[int, Sequence[Intervention]],
    *,
    first_steps: Mapping[int, int],
    padding: Sequence[int],
    pictures: Mapping[int, Rows],
) -> Tensor:
    """The states `[batch, T, hidden]` with the residuals of the given rows added.

    `first_steps[b]` is the step of row b's first column: 1 at the last prompt token, less before
    it, 2 and more after it. `padding[b]` columns of row b are no tokens. `pictures[b]` are the
    columns of its picture, where `hidden` has them. Returns a new tensor; `hidden` is left as it
    is.
    """
    changed = hidden.clone()
    for b, interventions in rows.items():
        first = first_steps[b]
        all_steps = torch.arange(first, first + hidden.shape[1], device=hidden.device)
        for intervention in interventions:
            columns: Rows = slice(padding[b], None)
            if intervention.positions == "from_last_prompt_token":
                columns = slice(max(padding[b], 1 - first), None)
            elif intervention.positions == "vision":
                columns = pictures.get(b, slice(0, 0))
            # Every intervention reads the base states, never another's result.
            states = hidden[b, columns].float()
            if not len(states):
                continue
            changed[b, columns] += intervention.residual(states, all_steps[columns]).to(
                hidden.dtype
            )
    return changed
