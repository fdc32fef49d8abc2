"""What the router computes from keys: the scores, as plain functions of learned scalars.

With cosines of whole keys (`psi` textual, `phi` visual, `theta` the sentinel's), learned scales
and `cos` the cosine of the image keys:

    s_p(e) = a <psi, psi_hat_e> + b                                       textual score
    gate   = sigmoid( s_p(e) )                                            dropped below rho
    s_v(e) = c ( <phi, phi_hat_e> - <phi, theta> ) + d ( cos(e) - m )     dropped unless > 0
    w      = softmax over survivors of  s_p + alpha (cos - tau) + beta s_v

`d = 0` is the paper's sentinel test (LiveEdit, equation 5), and its soft weights (equation 7)
are `sigmoid(s_p) softmax(s_p)`: see `WeightRule`.
"""

from __future__ import annotations

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
        """`s_v` of cosines of visual keys, of the sentinel's, and of the image keys."""
        learned = self.log_visual.exp() * (cosine - sentinel)
        return learned + self.log_image.exp() * (image_cosine - self.image_centre)


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
