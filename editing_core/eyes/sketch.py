"""A sketch of a picture: small enough to be stored with its key, to be laid beside another.

    low maps      12 numbers a cell of 16 x 16      edges and small signs, where they are
    middle maps   24 numbers a cell of 8 x 8        parts
    colours       3 levels a cell of 32 x 32

Numbers are projections of the frozen network's maps onto their principal directions, each of
deviation 1, kept as int8: 7,680 bytes a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

LOW, MIDDLE = 12, 24
LOW_SIDE, MIDDLE_SIDE, COLOUR_SIDE = 16, 8, 32
_PARTS = (
    (LOW, LOW_SIDE),
    (MIDDLE, MIDDLE_SIDE),
    (3, COLOUR_SIDE),
)
SIZE = sum(channels * side**2 for channels, side in _PARTS)
"""Bytes of a sketch."""
_STEP = 24.0
"""Steps of int8 in one deviation."""

Sketch = NDArray[np.int8]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Sketches, unpacked: float32 `[n, channels, side, side]` each; colours from -1 to 1."""

    low: Tensor
    middle: Tensor
    colours: Tensor


class Sketcher(nn.Module):
    """Projections of two of the network's maps. `mirrored` ones are those of a mirrored picture:
    a projection of what the picture shows the other way round, fitted, never exact."""

    low_mean: Tensor
    low_to: Tensor
    low_mirrored: Tensor
    middle_mean: Tensor
    middle_to: Tensor
    middle_mirrored: Tensor

    def __init__(self, low: int, middle: int) -> None:
        super().__init__()
        for name, width, size in (("low", low, LOW), ("middle", middle, MIDDLE)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_to", torch.zeros(size, width))
            self.register_buffer(f"{name}_mirrored", torch.eye(size))

    def forward(self, maps: list[Tensor], pixels: Tensor) -> Tensor:
        """int8 `[n, SIZE]` of the network's maps and of what it looked at, of levels 0 to 255."""
        projected = [
            torch.einsum("oc,nchw->nohw", to, each - mean[:, None, None]) * _STEP
            for each, mean, to in (
                (maps[0], self.low_mean, self.low_to),
                (maps[1], self.middle_mean, self.middle_to),
            )
        ]
        colours = F.adaptive_avg_pool2d(pixels, COLOUR_SIDE) - 127.5
        found = torch.cat([each.flatten(1) for each in (*projected, colours)], 1)
        return found.round().clamp(-127, 127).to(torch.int8)

    def mirrored(self, shown: Shown) -> Shown:
        """About what the mirrored pictures would show."""
        low = torch.einsum("oc,nchw->nohw", self.low_mirrored, shown.low.flip(3))
        middle = torch.einsum("oc,nchw->nohw", self.middle_mirrored, shown.middle.flip(3))
        return Shown(low, middle, shown.colours.flip(3))


def unpacked(sketches: Tensor) -> Shown:
    """Of int8 `[n, SIZE]`."""
    sizes = [channels * side**2 for channels, side in _PARTS]
    low, middle, colours = (
        part.float().view(-1, channels, side, side)
        for part, (channels, side) in zip(torch.split(sketches, sizes, 1), _PARTS, strict=True)
    )
    return Shown(low / _STEP, middle / _STEP, colours / 127.5)


@torch.no_grad()
def fit_sketcher(
    maps: list[tuple[Tensor, Tensor]], mirrored: list[tuple[Tensor, Tensor]]
) -> Sketcher:
    """Principal directions of low and middle maps `[n, channels, side, side]` of some pictures, and
    what those become of the same pictures, mirrored (least squares)."""
    found = Sketcher(maps[0][0].shape[1], maps[0][1].shape[1])
    for place, (name, size) in enumerate((("low", LOW), ("middle", MIDDLE))):
        own = torch.cat([each[place] for each in maps])
        other = torch.cat([each[place] for each in mirrored])
        rows = own.permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T))
        to = (vectors[:, -size:] / values[-size:].clamp_min(1e-9).sqrt()).T.flip(0)
        flipped = other.flip(3).permute(0, 2, 3, 1).flatten(0, 2).double()
        before, after = (rows - mean) @ to.T, (flipped - mean) @ to.T
        # The mirrored picture's maps, laid the right way round, are `own` seen in a mirror.
        solution = torch.linalg.lstsq(before, after).solution.T
        for key, tensor in (("mean", mean), ("to", to), ("mirrored", solution)):
            setattr(found, f"{name}_{key}", tensor.half().float())  # as it is stored
    return found
