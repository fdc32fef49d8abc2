"""Rows made comparable: what all of them share is taken away, and directions count alike.

Behind a chat template the states that predict a first token all look the same, and so do those
that predict a second one: what tells two questions apart is a small part of each. Rows are
therefore whitened with the mean and the covariance of their own kind, and brought to length 1; then
their inner products are cosines. The covariance is that of each coordinate alone, plus the main
directions of what is left: a few rows are enough to measure it, and little to store.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHRINKAGE = 0.1
"""How far variances are drawn to their mean: few rows exaggerate the spread of directions."""

_MOST_STRETCHED = 100.0


class Whitening(nn.Module):
    """Measured statistics of one kind of row: buffers `mean`, `scale` `[hidden]`, `basis`
    `[rank, hidden]` of orthonormal rows, and `shrink` `[rank]` in 0..1."""

    mean: Tensor
    scale: Tensor
    basis: Tensor
    shrink: Tensor

    def __init__(self, hidden: int, *, rank: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden))
        self.register_buffer("scale", torch.ones(hidden))
        self.register_buffer("basis", torch.zeros(rank, hidden))
        self.register_buffer("shrink", torch.zeros(rank))

    @torch.no_grad()
    def measure(self, rows: Tensor) -> None:
        """Take the statistics of `rows` `[n, hidden]`.

        Raises:
            ValueError: fewer than two rows, or rows that are all the same.
        """
        if len(rows) < 2:
            raise ValueError(f"whitening needs two rows or more, got {len(rows)}")
        rows = rows.double().cpu()
        mean, spread = rows.mean(0), rows.std(0)
        usual = float(spread.median())
        if usual <= 0.0:
            raise ValueError("whitening needs rows that differ")
        # Lengths do not matter in the end: the scale is relative, which also suits half precision.
        scale = (usual / spread.clamp_min(usual / _MOST_STRETCHED)).clamp_min(1 / _MOST_STRETCHED)
        centred = (rows - mean) * scale / usual
        _, singular, basis = torch.linalg.svd(centred / (len(rows) - 1) ** 0.5, full_matrices=False)
        rank = min(len(self.shrink), len(singular))
        variances, total = singular[:rank].square(), float(centred.var(0).sum())
        others = max(total - float(variances.sum()), 0.0) / max(rows.shape[1] - rank, 1)
        level = total / rows.shape[1]
        variances, others = (
            (1 - _SHRINKAGE) * variances + _SHRINKAGE * level,
            (1 - _SHRINKAGE) * others + _SHRINKAGE * level,
        )
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        self.basis.zero_()[:rank] = basis[:rank].to(self.basis)
        shrink = 1 - (others / variances).clamp_max(1.0).sqrt()
        self.shrink.zero_()[:rank] = shrink.to(self.shrink)

    def forward(self, rows: Tensor) -> Tensor:
        """Whitened rows of length 1, `[..., hidden]`."""
        rows = (rows - self.mean) * self.scale
        rows = rows - ((rows @ self.basis.T) * self.shrink) @ self.basis
        return nn.functional.normalize(rows, dim=-1)


class RowStatistics(nn.Module):
    """Statistics of both kinds of row that an answer is predicted from, at one layer.

    `first` is for last prompt rows, `later` for rows of the answer; buffer `size` is the root mean
    square of an entry of either, the unit in which changes are made.
    """

    size: Tensor

    def __init__(self, hidden: int, *, rank: int) -> None:
        super().__init__()
        self.first = Whitening(hidden, rank=rank)
        self.later = Whitening(hidden, rank=rank)
        self.register_buffer("size", torch.ones(()))

    def measure(self, first: Tensor, later: Tensor) -> None:
        """Take the statistics of rows `[n, hidden]` of each kind; see `Whitening.measure`."""
        self.first.measure(first)
        self.later.measure(later)
        # The median, for a few coordinates of a few rows are huge in some models.
        sizes = torch.cat([first, later]).float().square().mean(-1).sqrt()
        self.size.copy_(sizes.median())

    def forward(self, states: Tensor, steps: Tensor) -> Tensor:
        """Every row by the statistics of its kind; see `Norm`."""
        is_first = (steps <= 1).unsqueeze(-1)
        return torch.where(is_first, self.first(states), self.later(states))
