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

_GLANCE = 192
"""Pixels of the square that frames are looked for in."""
_NEAR, _STRAY, _LEAST = 26, 0.03, 16
"""A frame's colours are so near, but for a share that strays; what it holds is not smaller."""

_GRIDS = (4, 2, 2, 1)
"""Cells a side of each map's means, in the order of the network's maps."""
_COLOUR_GRID = 8
COLOURS = 3 * _COLOUR_GRID**2
"""How many of the features, the last ones, are colours."""


def pixels_of(image: ImageArray) -> Tensor:
    """`uint8 [height, width, 3]` as float32 `[3, SIDE, SIDE]` of 0 to 255, its sides scaled apart.

    A plain frame is cut off first, and so is plain ground around a drawing. Not letterboxed: a
    crop of one side would move everything.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    small = np.asarray(picture.resize((_GLANCE, _GLANCE), Image.Resampling.BILINEAR, None, 2.0))
    left, top, right, bottom = framed(small)
    across, down = picture.width / _GLANCE, picture.height / _GLANCE
    box = (left * across, top * down, right * across, bottom * down)
    shown = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box, 2.0)
    return torch.from_numpy(np.array(shown, dtype=np.float32)).permute(2, 0, 1)


def framed(small: ImageArray) -> tuple[int, int, int, int]:
    """`(left, top, right, bottom)` of what lies within plain frames, at most two of them.

    A frame has one colour on all four sides, so that a band of a flag is none. What is left is at
    least half as high as wide, and the other way round: a dash stays one.
    """
    left, top, right, bottom = 0, 0, small.shape[1], small.shape[0]
    for _ in range(2):
        inner = small[top:bottom, left:right]
        ring = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]]).astype(np.int16)
        colour = np.median(ring, axis=0)
        if (np.abs(ring - colour).max(1) > _NEAR).mean() > _STRAY:
            break
        differs = np.abs(inner.astype(np.int16) - colour).max(2) > _NEAR
        rows = np.flatnonzero(differs.mean(1) > _STRAY / 4)
        columns = np.flatnonzero(differs.mean(0) > _STRAY / 4)
        if len(rows) < _LEAST or len(columns) < _LEAST:
            break
        least = max(rows[-1] - rows[0], columns[-1] - columns[0]) // 2
        (up, low), (near, far) = (
            # Less one pixel a side, in which the frame and what it holds are mixed.
            _at_least(line[0] + 1, line[-1], least, most)
            for line, most in ((rows, inner.shape[0]), (columns, inner.shape[1]))
        )
        left, top, right, bottom = left + near, top + up, left + far, top + low
    return left, top, right, bottom


def _at_least(start: int, end: int, least: int, most: int) -> tuple[int, int]:
    """The range widened on both sides to `least`, within `0..most`."""
    missing = max(0, least - int(end - start))
    low = max(0, int(start) - missing // 2)
    high = min(most, low + max(least, int(end - start)))
    return max(0, min(low, high - least)), high


@torch.no_grad()
def look_at(network: Network, images: Sequence[ImageArray]) -> tuple[list[Tensor], Tensor]:
    """The network's maps of the images, and the pixels `[n, 3, SIDE, SIDE]` that it looked at."""
    pixels = torch.stack([pixels_of(image) for image in images])
    return network(pixels), pixels


def pooled(maps: Sequence[Tensor], pixels: Tensor) -> Tensor:
    """What keys and gates read of `look_at`: float32 `[n, width]`, the colours last."""
    found = [
        F.adaptive_avg_pool2d(each, grid).flatten(1)
        for each, grid in zip(maps, _GRIDS, strict=True)
    ]
    colours = F.adaptive_avg_pool2d(pixels / 127.5 - 1.0, _COLOUR_GRID).flatten(1)
    return torch.cat([*found, colours], 1)


def spread_of(features: Tensor) -> Tensor:
    """How much there is to see in pictures of these features `[..., width]`: `[...]`.

    The standard deviation of the colours over the picture, of levels from -1 to 1.
    """
    colours = features[..., -COLOURS:].float()
    return colours.reshape(*colours.shape[:-1], 3, -1).std(-1).mean(-1)


def features_of(network: Network, images: Sequence[ImageArray]) -> Tensor:
    """float32 `[images, width]`."""
    return pooled(*look_at(network, images))
