"""Which modules make the answer: what attention and MLP of each block contribute to one token.

VisEdit's contribution allocation (AAAI 2025, arXiv 2408.09916): the output of every module at the
token before the answer is read by itself through the model's final norm and output head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editing_core.backbones.passes import DecoderPasses


@dataclass(frozen=True, slots=True)
class LayerContribution:
    """What one block's modules contribute to the answer token, each in -1..1."""

    layer: int
    attention: float
    mlp: float


@torch.no_grad()
def contributions(
    backbone: DecoderPasses, attention: Tensor, mlp: Tensor, token: int
) -> tuple[LayerContribution, ...]:
    """Each block's contribution to `token`, from its modules' outputs where it was chosen.

    With `z = W_lm Norm(r)` for one module's output r, `v = z[token]` and
    `q = softmax(z)[token]`:

        Co = sign(v) sqrt(|v| / M) sqrt(q)        M = max |v| over all modules of all blocks

    so a module counts when it speaks loudly for the token and for few others.

    Args:
        attention, mlp: `[num_layers, hidden]`, in the model's own type.
    """
    outputs = torch.stack([attention, mlp], dim=1)  # [num_layers, 2, hidden]
    logits = backbone.output_head(backbone.final_norm(outputs)).double()
    values = logits[..., token]
    loudest = values.abs().max()
    # A model whose modules all say nothing has no loudest one.
    share = values.abs() / loudest if loudest > 0 else torch.zeros_like(values)
    found = values.sign() * share.sqrt() * logits.softmax(-1)[..., token].sqrt()
    return tuple(LayerContribution(layer, *pair) for layer, pair in enumerate(found.cpu().tolist()))


def recommended_layer(attention: Sequence[float] | NDArray[np.float64], *, lowest: int = 0) -> int:
    """The layer to edit: right before the block at which attention starts to contribute.

    "Starts" is where the curve is best told as two levels, a low one up to the layer and a high one
    above it: the split with the greatest sum of squares between its sides (which leaves the least
    within them), counted as negative where the curve falls. On the curve of LLaVA 1.5 that VisEdit
    shows, this gives the layer its authors edit. Of equal splits the lowest layer is taken.

    Args:
        attention: its contribution in each block, of one question or the mean over many; one
            question's curve is noisy.
        lowest: the lowest layer that may be recommended. The last never is: nothing reads it.

    Raises:
        ValueError: there is no layer from `lowest` on with a block above it.
    """
    curve = np.asarray(attention, dtype=np.float64)
    layers = range(lowest, len(curve) - 1)
    if not 0 <= lowest < len(curve) - 1:
        raise ValueError(f"of {len(curve)} layers none from {lowest} on has a block above it")
    return max(layers, key=lambda layer: _rise(curve[: layer + 1], curve[layer + 1 :]))


def _rise(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Sum of squares between two sides, with the sign of the step from one to the other."""
    step = float(high.mean() - low.mean())
    return len(low) * len(high) / (len(low) + len(high)) * step * abs(step)
