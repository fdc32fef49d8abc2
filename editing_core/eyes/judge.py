"""The judge: two sketches side by side. Is this the same picture again, or one that looks like it?

    align     of all small shifts, scales and mirrorings the one under which most cells agree
    compare   cell by cell where they then lie: shapes, colours, colours but for light and cast
    say       a small network reads the differences: above 0, the same picture

Keys say which pictures are alike; no cosine of theirs parts a copy from a drawing in another
shade. The search is exhaustive and has no weights: a shift of both axes is one of rows and one of
columns, so all pairs of them cost two small products.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.eyes.sketch import (
    COLOUR_SIDE,
    LOW,
    LOW_SIDE,
    MIDDLE,
    MIDDLE_SIDE,
    Shown,
    Sketcher,
    unpacked,
)

_KEPT = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of a side that a crop keeps."""
_STEPS = 0.05
_SLID = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2)
"""Shifts without a change of size: of two crops of one picture."""
_WHOLE = 0.03
"""What an alignment loses that lays nothing over one another, of a mean cosine."""
_COLOUR_WEIGHT = 1.5
_STILL = 0.01
"""Draws the contrast of pictures that have little of it to 1."""
_CAST = 0.15
"""How far light may push one colour more than the others, of levels from -1 to 1."""
_CHANNELS = 3 * LOW + 1 + MIDDLE + 4 * 3 + 2 * 4 + 1
_GLOBALS = 12


class Judge(nn.Module):
    """Of pairs of sketches to scores. Symmetric it is not: the first is laid over the second."""

    def __init__(self, *, wide: int, deep: int, hidden: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(_CHANNELS, wide, 1)
        self.near = nn.Conv2d(wide, wide, 3, padding=1)
        self.far = nn.Conv2d(wide, deep, 3, padding=1)
        self.first = nn.Linear(2 * deep + _GLOBALS, hidden)
        self.second = nn.Linear(hidden, 1)

    def forward(self, maps: Tensor, told: Tensor) -> Tensor:
        """Of `differences` `[n, channels, LOW_SIDE, LOW_SIDE]` and `[n, globals]`: `[n]`."""
        valid = F.avg_pool2d(maps[:, -1:], 2)
        state = F.relu(self.narrow(maps))
        state = F.relu(self.near(state)) + state
        state = F.relu(self.far(F.avg_pool2d(state, 2))) * valid
        mean = state.sum((2, 3)) / valid.sum((2, 3)).clamp_min(1.0)
        found = torch.cat([mean, state.amax((2, 3)), told], 1)
        return self.second(F.gelu(self.first(found)))[:, 0]  # type: ignore[no-any-return]


@torch.no_grad()
def differences(sketcher: Sketcher, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """What the judge reads of pairs of sketches, int8 `[n, SIZE]` each."""
    first, second = unpacked(one), unpacked(other)
    second, affine, score, is_mirrored = _aligned(first, second, sketcher.mirrored(second))
    low, middle, colours = (
        _laid(each, affine, side)
        for each, side in (
            (second.low, LOW_SIDE),
            (second.middle, LOW_SIDE),
            (second.colours, COLOUR_SIDE),
        )
    )
    own_middle = F.interpolate(first.middle, size=LOW_SIDE, mode="bilinear")
    valid = _laid(torch.ones_like(second.low[:, :1]), affine, LOW_SIDE).ge(0.5).float()
    one_lit, other_lit, light = _in_one_light(first.colours, colours, valid)
    small, own_small, lit = (
        F.avg_pool2d(each, 2) for each in (colours, first.colours, (one_lit - other_lit).abs())
    )
    maps = torch.cat(
        [
            first.low,
            low,
            (first.low - low).abs(),
            _nearest(first.low, low),
            (own_middle - middle).abs(),
            own_small,
            small,
            (own_small - small).abs(),
            lit,
            F.pixel_unshuffle((first.colours - colours).abs().mean(1, keepdim=True), 2),
            F.pixel_unshuffle(_nearest(one_lit, other_lit), 2),
            valid,
        ],
        1,
    )
    maps[:, :-1] *= valid
    told = torch.cat(
        [
            score[:, None],
            is_mirrored.float()[:, None],
            affine[:, [0, 2]],
            valid.mean((1, 2, 3))[:, None],
            light,
            (lit.mean(1, keepdim=True) * valid).mean((2, 3)),
        ],
        1,
    )
    return maps, told


def _aligned(first: Shown, second: Shown, turned: Shown) -> tuple[Shown, Tensor, Tensor, Tensor]:
    """The second, mirrored where that fits better; `(across scale, shift, down scale, shift)`
    `[n, 4]` that lay it under the first; the mean cosine there; and whether it is mirrored."""
    own = _cells(first)
    scales, shifts, samples, covers = _hypotheses()
    best = []
    for shown in (second, turned):
        cosines = torch.einsum("ncyx,ncvu->nyxvu", own, _cells(shown))
        rows = torch.einsum("hyv,nyxvu->nhxu", samples, cosines)
        sums = torch.einsum("kxu,nhxu->nhk", samples, rows)
        overlap = covers[:, None] * covers
        scores = sums / (overlap * MIDDLE_SIDE**2) + _WHOLE * overlap
        best.append(scores.flatten(1).max(1))
    is_mirrored = best[1].values > best[0].values
    score = torch.where(is_mirrored, best[1].values, best[0].values)
    chosen = torch.where(is_mirrored, best[1].indices, best[0].indices)
    down, across = chosen // len(scales), chosen % len(scales)
    affine = torch.stack([scales[across], shifts[across], scales[down], shifts[down]], 1)
    which = is_mirrored[:, None, None, None]
    laid = Shown(
        torch.where(which, turned.low, second.low),
        torch.where(which, turned.middle, second.middle),
        torch.where(which, turned.colours, second.colours),
    )
    return laid, affine, score, is_mirrored


def _cells(shown: Shown) -> Tensor:
    """What cells are compared by: `[n, channels, MIDDLE_SIDE, MIDDLE_SIDE]`, each of length 1."""
    low = F.avg_pool2d(shown.low, LOW_SIDE // MIDDLE_SIDE)
    colours = F.avg_pool2d(shown.colours, COLOUR_SIDE // MIDDLE_SIDE)
    found = [shown.middle / MIDDLE**0.5, low / LOW**0.5, _COLOUR_WEIGHT * colours]
    return F.normalize(torch.cat(found, 1), dim=1)


@lru_cache(maxsize=1)
def _hypotheses() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of one axis: scales and shifts `[h]`, such that a place u of the first, from 0 to 1, lies at
    `scale * u + shift` of the second; the weights of the second's cells for each of the first's
    `[h, cells, cells]`; and the share of the first that the second covers, `[h]`."""
    found = [(1.0, shift) for shift in _SLID]
    for kept in _KEPT:
        steps = round((1.0 - kept) / _STEPS) + 1
        for offset in torch.linspace(0.0, 1.0 - kept, steps).tolist():
            found += [(kept, offset), (1.0 / kept, -offset / kept)]
    scales, shifts = torch.tensor(found).T
    centres = (torch.arange(MIDDLE_SIDE) + 0.5) / MIDDLE_SIDE
    places = scales[:, None] * centres + shifts[:, None]
    inside = (places > -0.02) & (places < 1.02)
    cells = (places * MIDDLE_SIDE - 0.5).clamp(0.0, MIDDLE_SIDE - 1.0)
    samples = (1.0 - (cells[..., None] - torch.arange(MIDDLE_SIDE)).abs()).clamp_min(0.0)
    return scales, shifts, samples * inside[..., None], inside.float().mean(1)


def _laid(second: Tensor, affine: Tensor, side: int) -> Tensor:
    """The second's maps where they lie over the first's `side` x `side` cells; 0 outside."""
    scale_x, shift_x, scale_y, shift_y = affine.T
    zeros = torch.zeros_like(scale_x)
    # From places of 0 to 1 to those of -1 to 1.
    theta = torch.stack(
        [
            torch.stack([scale_x, zeros, 2 * shift_x + scale_x - 1], 1),
            torch.stack([zeros, scale_y, 2 * shift_y + scale_y - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [len(second), 1, side, side], align_corners=False)
    return F.grid_sample(second, grid, align_corners=False)


def _nearest(first: Tensor, second: Tensor) -> Tensor:
    """The mean difference, `[n, 1, side, side]`, from the most alike of a cell's nine neighbours:
    turned pictures and small errors of the alignment count little."""
    side = first.shape[-1]
    around = F.pad(second, (1, 1, 1, 1), mode="replicate")
    best = None
    for y in range(3):
        for x in range(3):
            shifted = around[:, :, y : y + side, x : x + side]
            apart = (first - shifted).abs_().mean(1, keepdim=True)
            best = apart if best is None else torch.minimum(best, apart)
    assert best is not None
    return best


def _in_one_light(first: Tensor, second: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colours of both, as far as light can make them equal, and `[n, 6]`: what it took.

    Saturation is brought down to that of the paler one; brightness and contrast are the same for
    all colours, and a cast is slight. A freer fit would turn one flag into another.
    """
    weight = F.interpolate(valid, scale_factor=2.0)
    weight = weight / weight.sum((1, 2, 3), keepdim=True).clamp_min(1.0)
    pales, chromas, strengths = [], [], []
    for each in (first, second):
        grey = each.mean(1, keepdim=True)
        chroma = each - grey
        pales.append(grey)
        chromas.append(chroma)
        strengths.append((weight * chroma**2).sum((1, 2, 3), keepdim=True).sqrt() + 1e-3)
    least = torch.minimum(*strengths)
    one, other = (
        grey + chroma * (least / strength)
        for grey, chroma, strength in zip(pales, chromas, strengths, strict=True)
    )
    means = [(weight * each).sum((1, 2, 3), keepdim=True) / 3.0 for each in (one, other)]
    off, away = one - means[0], other - means[1]
    gain = (weight * off * away).sum((1, 2, 3), keepdim=True)
    spread = (weight * away**2).sum((1, 2, 3), keepdim=True)
    gain = ((gain + _STILL) / (spread + _STILL)).clamp(0.4, 1.8)
    lit = means[0] + gain * away
    cast = (weight * (one - lit)).sum((2, 3), keepdim=True).clamp(-_CAST, _CAST)
    took = [gain, means[0] - means[1], (strengths[0] / strengths[1]).log(), cast]
    return one, lit + cast, torch.cat([each.flatten(1) for each in took], 1)
