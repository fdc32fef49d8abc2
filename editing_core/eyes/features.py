"""What the eyes tell of a picture before training: pooled maps, and where which colour is.

Low maps keep their place (a grid of means), high ones do not. Colours are means of a grid, since a
network that was trained to name things looks past them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from editing_core.eyes.network import Network
from editing_core.types import ImageArray

SIDE = 128
"""Pixels of the square that the eyes look at."""

_GRIDS = (4, 2, 2, 1)
"""Cells a side of each map's means, in the order of the network's maps."""
_COLOUR_GRID = 8


def pixels_of(image: ImageArray) -> Tensor:
    """`uint8 [height, width, 3]` as float32 `[3, SIDE, SIDE]` of 0 to 255, its sides scaled apart.

    Not letterboxed: a crop of one side would move everything.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return torch.from_numpy(np.array(small, dtype=np.float32)).permute(2, 0, 1)


def groups_of(network: Network, pixels: Tensor) -> list[Tensor]:
    """Of `[n, 3, SIDE, SIDE]` one `[n, width]` for each map, and the colours' last."""
    maps = network(pixels)
    found = [
        F.adaptive_avg_pool2d(each, grid).flatten(1)
        for each, grid in zip(maps, _GRIDS, strict=True)
    ]
    colours = F.adaptive_avg_pool2d(pixels / 127.5 - 1.0, _COLOUR_GRID).flatten(1)
    return [*found, colours]


@torch.no_grad()
def features_of(network: Network, images: Sequence[ImageArray]) -> Tensor:
    """float32 `[images, width]`."""
    pixels = torch.stack([pixels_of(image) for image in images])
    return torch.cat(groups_of(network, pixels), 1)
