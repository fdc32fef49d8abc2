"""What the router computes from keys: the scores, as plain functions of learned scalars.

With cosines of whole textual keys `psi`, of each slot k of visual keys `phi` (`theta` the
sentinel's), learned scales and `cos` the cosine of the image keys:

    s_p(e) = a <psi, psi_hat_e> + b                                       textual score
    gate   = sigmoid( s_p(e) )                                            dropped below rho
    m_k(e) = c ( <phi_k, phi_hat_e,k> - <phi_k, theta_k> )
    s_v(e) = softmin_k m_k(e) + d ( cos(e) - m )                          dropped unless > 0
    w      = softmax over survivors of  s_p + alpha (cos - tau) + beta s_v

With `softmin_k m_k = -log mean_k exp(-m_k)`, one slot that disagrees is enough: a look-alike
differs in one thing, and a mean over slots would outvote it. The paper's sentinel test (LiveEdit,
equation 5) is the mean over slots with `d = 0`, and its soft weights (equation 7) are
`sigmoid(s_p) softmax(s_p)`: see `WeightRule`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

WeightRule = Literal["joint", "paper"]
"""`joint`: as above, weights sum to 1. `paper`: text only, shrunk by the gate, nothing dropped."""


class ScoreScales(nn.Module):
    """The learned scalars above, kept positive where a sign would make no sense.

    Factors are learned as logarithms: the image keys' starts large, because cosines of look-alikes
    differ by hundredths, and a rate that suits weights would never take it there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_text = nn.Parameter(torch.tensor(3.0))
        self.text_bias = nn.Parameter(torch.tensor(-10.0))
        self.log_visual = nn.Parameter(torch.tensor(3.0))
        self.log_image = nn.Parameter(torch.tensor(4.0))
        self.image_centre = nn.Parameter(torch.tensor(0.9))

    def text(self, cosine: Tensor) -> Tensor:
        """`s_p` of cosines of textual keys."""
        return self.log_text.exp() * cosine + self.text_bias

    def visual(self, cosine: Tensor, sentinel: Tensor, image_cosine: Tensor) -> Tensor:
        """`s_v [...]` of cosines `[..., slots]` of visual keys and of the sentinel's, and `[...]`
        of the image keys."""
        agreement = self.log_visual.exp() * (cosine - sentinel)
        softmin = math.log(agreement.shape[-1]) - (-agreement).logsumexp(-1)
        return softmin + self.log_image.exp() * (image_cosine - self.image_centre)


def survivor_weights(
    text: Tensor,
    visual: Tensor,
    image_cosine: Tensor,
    *,
    rule: WeightRule,
    alpha: float,
    beta: float,
    tau: float,
) -> Tensor:
    """Weights of the survivors, `[survivors]`, from their scores."""
    if rule == "paper":
        return text.sigmoid() * text.softmax(-1)
    return (text + alpha * (image_cosine - tau) + beta * visual).softmax(-1)
