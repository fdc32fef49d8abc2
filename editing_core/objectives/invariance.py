"""How a risk changes with one scalar on the features, in closed form, and the penalty made of it.

The dummy classifier of invariant risk minimisation is one scalar `s = 1` that multiplies the last
hidden states. The output head is linear without bias, so `s` multiplies the logits too, and what
reads the features directly (MMD) feels it as well. A slope is the derivative of a risk in `s` at
1. It is an ordinary expression in logits or features, so the penalty is differentiated once, and
no graph of a gradient is kept.

Source of the penalty: ODEdit (arXiv 2601.19700), equations 11 to 13, and OOD-TV-IRM (arXiv
2502.19665), whose code has this scalar. The closed forms are our own derivation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from editing_core.objectives.losses import mean_over_tokens, squared_distances

Variation = Literal["l1", "l2"]


def nll_slope(logits: Tensor, targets: Tensor) -> Tensor:
    """Of `losses.sequence_nll`: `sum_i p_i z_i - z_y`, averaged over each row's tokens.

    Args:
        logits: `z`, `[rows, n, vocab]`.
        targets: int64 `[rows, n]`, `IGNORED` where padded.

    Returns:
        `[rows]`.
    """
    chosen = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return mean_over_tokens(_mean_logit(logits, logits) - chosen, targets)


def kl_edited_slope(edited: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    """Of `losses.kl_edited_to_base`: `sum_i p_i (z_i - mean_p z) (log p_i - log q_i)`.

    `p` and `z` are the edited model's, `q` the base model's. Shapes as in the loss.
    """
    log_p = edited.log_softmax(-1)
    log_ratio = log_p - base.detach().log_softmax(-1)
    centred = edited - _mean_logit(edited, edited)[..., None]
    return mean_over_tokens((log_p.exp() * centred * log_ratio).sum(-1), targets)


def kl_base_slope(edited: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    """Of `losses.kl_base_to_edited`: `sum_i p_i z_i - sum_i q_i z_i`. Shapes as in the loss."""
    moved = _mean_logit(edited, edited) - _mean_logit(edited, base.detach())
    return mean_over_tokens(moved, targets)


def mmd_slope(first: Tensor, second: Tensor, bandwidths: Tensor) -> Tensor:
    """Of `losses.mmd`: each `k(a, b)` becomes `-sum_q (d / sigma_q^2) exp(-d / (2 sigma_q^2))`.

    `d = ||a - b||^2`; the bandwidths do not move with `s`.
    """

    def slope(a: Tensor, b: Tensor) -> Tensor:
        scaled = squared_distances(a, b)[..., None] / bandwidths.square()
        return -(scaled * (-scaled / 2).exp()).sum(-1).mean()

    return slope(first, first) + slope(second, second) - 2 * slope(first, second)


def total_variation(slopes: Sequence[Tensor], variation: Variation = "l1") -> Tensor:
    """The penalty of the slopes of the environments, one scalar each.

    `l1` is ODEdit's, the square of the mean absolute slope; `l2` is IRMv1's, the mean square.
    """
    each = torch.stack(list(slopes))
    return each.abs().mean().square() if variation == "l1" else each.square().mean()


def _mean_logit(logits: Tensor, weighing: Tensor) -> Tensor:
    """`sum_i softmax(weighing)_i logits_i`: `[rows, n]`."""
    return (weighing.softmax(-1) * logits).sum(-1)
