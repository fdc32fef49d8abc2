"""Loss functions: pure, batched, and each with its direction or its candidate set named.

Shapes: `rows` are sequences of answer positions, `n` padded positions, `vocab` logits. Padding is
marked by `IGNORED` in the targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


def sequence_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log likelihood of each row's target tokens, stop token included.

    Args:
        logits: `[rows, n, vocab]`.
        targets: int64 `[rows, n]`, `IGNORED` where padded.

    Returns:
        `[rows]`, the mean over each row's own tokens, so that long targets do not dominate.
    """
    losses = F.cross_entropy(logits.mT, targets, ignore_index=IGNORED, reduction="none")
    return losses.sum(-1) / (targets != IGNORED).sum(-1).clamp(min=1)


def mean_over_tokens(values: Tensor, targets: Tensor) -> Tensor:
    """Mean of each row's values `[rows, n, ...]` over its own tokens: `[rows, ...]`."""
    exists = (targets != IGNORED).reshape(*targets.shape, *[1] * (values.ndim - 2))
    return (values * exists).sum(1) / exists.sum(1).clamp(min=1)


def kl_base_to_edited(edited: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    """`KL(base || edited)`, averaged over each row's positions: LiveEdit's equation 11 as printed.

    The base model is the reference, so what it is sure of is what an edit is charged for moving.

    Args:
        edited, base: logits `[rows, n, vocab]`; no gradient flows into `base`.
        targets: int64 `[rows, n]`; only which positions exist matters.

    Returns:
        `[rows]`.
    """
    divergence = F.kl_div(
        edited.log_softmax(-1), base.detach().log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    return mean_over_tokens(divergence, targets)


def kl_edited_to_base(edited: Tensor, base: Tensor, targets: Tensor) -> Tensor:
    """`KL(edited || base)`, averaged over each row's positions: ODEdit's locality risk.

    The edited model is the reference, so an edit is charged for what it puts where the base put
    little, and not for what it takes away. Arguments and result as in `kl_base_to_edited`.
    """
    divergence = F.kl_div(
        base.detach().log_softmax(-1), edited.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    return mean_over_tokens(divergence, targets)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """`||a - b||^2` of every pair of `[a, width]` and `[b, width]`: `[a, b]`, never below 0."""
    return (first[:, None] - second[None]).square().sum(-1)


@torch.no_grad()
def median_bandwidths(points: Tensor, factors: Sequence[float]) -> Tensor:
    """The median heuristic: the median distance of two different points, times each factor.

    Args:
        points: `[points, width]`, at least two; no gradient flows through the bandwidths.

    Returns:
        `[factors]`, above 0 even where all points are the same.
    """
    distances = torch.pdist(points.float()).median().clamp(min=1e-6)
    return distances * torch.tensor(factors, device=points.device)


def mmd(first: Tensor, second: Tensor, bandwidths: Tensor) -> Tensor:
    """Squared maximum mean discrepancy between two sets of points, `[a, width]`, `[b, width]`.

    The kernel is a sum of Gaussians, `sum over q of exp(-||a - b||^2 / (2 sigma_q^2))`. All pairs
    count, a point with itself too (the V-statistic), so it is never below 0, and 0 for equal sets.
    It compares sets: which point of one belongs to which of the other makes no difference.
    """

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        scaled = squared_distances(a, b)[..., None] / bandwidths.square()
        return (-scaled / 2).exp().sum(-1).mean()

    return similarity(first, first) + similarity(second, second) - 2 * similarity(first, second)


def token_accuracy(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Share of target tokens, and of whole rows, whose teacher-forced argmax is right."""
    exists = targets != IGNORED
    right = (logits.argmax(-1) == targets) & exists
    rows = ((right | ~exists).all(-1)).float().mean()
    return float(right.sum() / exists.sum().clamp(min=1)), float(rows)


def contrastive(scores: Tensor, *, positive: Tensor, candidate: Tensor) -> Tensor:
    """NCE at temperature 1 with any number of positives per row.

    `-log( sum over positives of e^s / sum over candidates of e^s )`. With one positive it is the
    paper's NCE (equations 12 and 16).

    Args:
        scores: `[queries, keys]`.
        positive: bool `[queries, keys]`, a subset of `candidate`.
        candidate: bool `[queries, keys]`, what enters the denominator.

    Returns:
        Mean over the queries that have a positive; 0 if none has.
    """
    has = positive.any(-1)
    if not bool(has.any()):
        return scores.sum() * 0.0
    scores, positive, candidate = scores[has], positive[has], candidate[has]
    above = scores.masked_fill(~positive, -torch.inf).logsumexp(-1)
    below = scores.masked_fill(~candidate, -torch.inf).logsumexp(-1)
    return (below - above).mean()


def balanced_binary(logits: Tensor, *, positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross entropy in which positives and negatives weigh the same, however many.

    The mean over `positive` of `-log sigmoid(s)` plus the mean over `negative` of
    `-log(1 - sigmoid(s))`: equation 15's absolute loss with every negative of the batch in it.
    """
    parts = []
    if bool(positive.any()):
        parts.append(F.softplus(-logits[positive]).mean())
    if bool(negative.any()):
        parts.append(F.softplus(logits[negative]).mean())
    return sum(parts, start=logits.sum() * 0.0)
