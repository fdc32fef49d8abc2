"""Answer-aligned slots: experts with one slot for each token of their target, under one softmax.

A slot reads a row's normalised state with `down`, and writes `up` into the residual stream. With
`h` the base state at the edit layer, `t` the row's step (1 at the last prompt token, 2 at the
first generated one, ...) and `w_e` the router's weight of expert `e`, slot `i` of `e` has the logit

    z_{e,i} = norm_e(h, t) . down_{e,i} + bias_{e,i} - gamma_e |i - t| + log w_e

    a  = softmax over {null} and every slot of every expert
    h' = h + sum_{e,i} a_{e,i} up_{e,i}          rows with t >= 1 only

An expert may recognise its tokens in several ways, as rows look after several wordings of a prompt:
`down` then holds several sets of slots one after another, each of which writes the same `up`.

The null slot writes nothing. Its logit is 0: an editor that learns one subtracts it from its
`bias`. An expert whose slots read unfamiliar rows as low as that may say in its metadata that the
null slot lies lower (`null`): the router has decided who acts, the slots only choose the token, and
other words must not silence them. Of several experts the lowest holds, so that they compete with
each other as they do without it. An editor whose norm has an affine part folds it into `down` and
`bias`. So a payload carries all that its logits need apart from the norm, named by id: the standard
one has no parameters, others are given by the editor that has them. So experts that different
editors made compete in one softmax. Two
terms carry weight: without `gamma` a target with repeated tokens loops, and with a softmax per
expert instead of a joint one two equal survivors halve each other.

Nothing here knows which editor made a payload.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.experts.rounding import rounded_payload
from editing_core.states import Norm
from editing_core.types import Positions

STANDARD_NORM = "standard"
"""Id of the norm that subtracts the mean of a row and divides by its standard deviation."""

NORM_FIELD = "norm"
NULL_FIELD = "null"
KIND_FIELD = "kind"
ALIGNED_KIND = "aligned"
_EPSILON = 1e-5


def standardise(states: Tensor) -> Tensor:
    """Layer normalisation without learned weights, over the last axis."""
    return torch.nn.functional.layer_norm(states, states.shape[-1:], eps=_EPSILON)


def _standard(states: Tensor, steps: Tensor) -> Tensor:
    del steps
    return standardise(states)


NORMS: Mapping[str, Norm] = {STANDARD_NORM: _standard}


@dataclass(frozen=True, slots=True)
class SlotExpert:
    """One edit's slots.

    `up` float32 `[num_slots, hidden]`; `down` float32 `[sets * num_slots, hidden]`, one set of
    slots after another, and `bias` float32 likewise; `gamma` float32 scalar tensor; `norm` the id
    of the norm that reads the rows; `null` the logit of the null slot, at most 0.
    """

    down: Tensor
    up: Tensor
    bias: Tensor
    gamma: Tensor
    norm: str = STANDARD_NORM
    null: float = 0.0

    def payload(self) -> dict[str, Tensor]:
        """The tensors as stored, see `rounding`."""
        parts = {"down": self.down, "up": self.up, "bias": self.bias, "gamma": self.gamma.view(1)}
        return rounded_payload(parts)

    def metadata(self) -> dict[str, str]:
        """What the payload's metadata says of it, so that `from_payload` can read it back."""
        found = {KIND_FIELD: ALIGNED_KIND, NORM_FIELD: self.norm}
        return found | ({NULL_FIELD: f"{self.null:g}"} if self.null else {})

    @classmethod
    def from_payload(
        cls,
        payload: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        device: torch.device | str = "cpu",
    ) -> SlotExpert:
        """Read `payload()` back in float32.

        Raises:
            ValueError: a tensor is missing, the shapes do not fit together, or the null slot's
                logit is not a number of at most 0.
        """
        missing = {"down", "up", "bias", "gamma"} - set(payload)
        if missing:
            raise ValueError(f"an aligned payload lacks {', '.join(sorted(missing))}")
        down, up, bias, gamma = (
            payload[name].to(device, torch.float32) for name in ("down", "up", "bias", "gamma")
        )
        fits = down.ndim == up.ndim == 2 and down.shape[1] == up.shape[1]
        if not fits or len(down) % len(up) or bias.shape != down.shape[:1]:
            raise ValueError(
                f"an aligned payload needs up [n, d], down [k * n, d] and bias [k * n], got up "
                f"{tuple(up.shape)}, down {tuple(down.shape)}, bias {tuple(bias.shape)}"
            )
        norm = metadata.get(NORM_FIELD, STANDARD_NORM)
        null = float(metadata.get(NULL_FIELD, 0.0))
        if not -math.inf < null <= 0.0:
            raise ValueError(f"the null slot's logit must be a number of at most 0, got {null}")
        return cls(down=down, up=up, bias=bias, gamma=gamma.reshape(()), norm=norm, null=null)

    @property
    def sets(self) -> int:
        """How many sets of slots there are."""
        return len(self.down) // len(self.up)


def slot_logits(
    normed: Tensor, steps: Tensor, *, down: Tensor, bias: Tensor, gamma: Tensor, index: Tensor
) -> Tensor:
    """Logits of every slot on every row, before the weights of the experts.

    Args:
        normed: `[..., rows, hidden]`, what the slots' norm makes of the states.
        steps: int `[..., rows]`.
        down: `[slots, hidden]`.
        bias, gamma, index: `[slots]`; `index` counts a slot from 1 within its own set.

    Returns:
        `[..., rows, slots]`.
    """
    distance = (index - steps.unsqueeze(-1)).abs().to(normed.dtype)
    return normed @ down.T + bias - gamma * distance


def mix_slots(logits: Tensor, up: Tensor, *, acting: Tensor, null: float = 0.0) -> Tensor:
    """The residual under one softmax over all slots and the null slot, whose logit is `null`.

    Args:
        logits: `[..., rows, slots]`; `-inf` where a slot's expert is not selected.
        up: `[slots, hidden]`.
        acting: bool `[..., rows]`; elsewhere the residual is exactly 0.

    Returns:
        `[..., rows, hidden]`.
    """
    none = torch.full_like(logits[..., :1], null)
    attention = torch.cat([none, logits], dim=-1).softmax(dim=-1)[..., 1:]
    return (attention @ up) * acting.unsqueeze(-1)


@dataclass(frozen=True, slots=True, eq=False)
class SlotGroup:
    """Slots that one norm reads: `down`, `up` `[slots, hidden]`, the others `[slots]`.

    `bias` has the weight of the slot's expert in it; `index` counts from 1 within its set.
    """

    norm: Norm
    down: Tensor
    up: Tensor
    bias: Tensor
    gamma: Tensor
    index: Tensor


class AlignedIntervention:
    """The slots of one row's experts, fused once at prefill and reused at every decode step.

    Built from `(expert, weight)` pairs; an expert with weight 0 is left out. Immutable, so it may
    be shared between threads. `norms` are those of editors whose rows need another than the
    standard one.
    """

    positions: Positions = "from_last_prompt_token"

    def __init__(
        self,
        experts: Sequence[tuple[SlotExpert, float]],
        *,
        norms: Mapping[str, Norm] = {},
    ) -> None:
        kept = [(expert, weight) for expert, weight in experts if weight > 0.0]
        if not kept:
            raise ValueError("an intervention needs at least one expert of positive weight")
        known = {**NORMS, **norms}
        unknown = {expert.norm for expert, _ in kept} - set(known)
        if unknown:
            raise ValueError(f"no norm named {', '.join(sorted(unknown))}")
        # Slots that share a norm share a matrix product; sorting is stable, so order is fixed.
        kept.sort(key=lambda pair: pair[0].norm)
        self.groups: dict[str, SlotGroup] = {}
        """By the name of their norm."""
        for name in dict.fromkeys(expert.norm for expert, _ in kept):
            group = [(expert, weight) for expert, weight in kept if expert.norm == name]
            self.groups[name] = _stack(group, known[name])
        self._up = torch.cat([group.up for group in self.groups.values()])
        self.null = min(expert.null for expert, _ in kept)

    def residual(self, states: Tensor, steps: Tensor) -> Tensor:
        """What to add to `states` `[rows, hidden]`, base states at the edit layer.

        `steps` int `[rows]`; rows with a step below 1 get exactly 0.
        """
        logits = torch.cat(
            [
                slot_logits(
                    group.norm(states, steps),
                    steps,
                    down=group.down,
                    bias=group.bias,
                    gamma=group.gamma,
                    index=group.index,
                )
                for group in self.groups.values()
            ],
            dim=-1,
        )
        return mix_slots(logits, self._up, acting=steps >= 1, null=self.null)


def _stack(group: Sequence[tuple[SlotExpert, float]], norm: Norm) -> SlotGroup:
    """Put experts that `norm` reads one after another."""
    down = torch.cat([expert.down for expert, _ in group])
    log_weights = torch.tensor([weight for _, weight in group], device=down.device).log()
    counts = [len(expert.down) for expert, _ in group]
    bias = torch.cat([e.bias + w for (e, _), w in zip(group, log_weights, strict=True)])
    gamma = torch.cat([e.gamma.expand(n) for (e, _), n in zip(group, counts, strict=True)])
    index = torch.cat([torch.arange(len(e.down), device=down.device) % len(e.up) for e, _ in group])
    up = torch.cat([expert.up.repeat(expert.sets, 1) for expert, _ in group])
    return SlotGroup(norm=norm, down=down, up=up, bias=bias, gamma=gamma, index=index + 1)
