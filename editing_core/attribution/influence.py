"""Where in the picture the answer comes from: what noise on each patch does to attention's output.

VisEdit's noise perturbation (AAAI 2025, arXiv 2408.09916): noise is added to the inputs of an
attention module at the patches of a small window, and the window's influence is how far the
module's output at the last token turns away. Nothing else of the model is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editing_core.backbones.watching import ModuleCall
from editing_core.errors import GenerationCancelled

_COPIES_BYTES = 64 * 2**20
"""Noisy copies of one module's inputs that are held at once; the module itself needs a few times
as much."""
_WINDOWS_A_SIDE = 8


@dataclass(frozen=True, slots=True)
class Perturbation:
    """The noise. Equal settings give equal figures on the same device.

    `sigma` counts in the root mean square of the module's inputs at the picture's patches, so that
    it means the same for every model (VisEdit: 0.7 absolute, at LLaVA's normed inputs). `radius`
    in patches: a window has `2 radius + 1` a side, cut off at the picture's edge; None takes about
    an eighth of the grid's longer side, which is VisEdit's 3 of 24 and a single patch of 8.
    """

    sigma: float = 0.7
    draws: int = 10
    radius: int | None = None
    seed: int = 0

    def radius_on(self, grid: tuple[int, int]) -> int:
        """In patches of `grid`."""
        if self.radius is not None:
            return self.radius
        return max(0, (max(grid) // _WINDOWS_A_SIDE - 1) // 2)


def influence(
    calls: Sequence[ModuleCall],
    *,
    first_patch: int,
    grid: tuple[int, int],
    noise: Perturbation | None = None,
    patches: Sequence[int] | None = None,
    copies_bytes: int = _COPIES_BYTES,
    is_cancelled: Callable[[], bool] | None = None,
) -> Tensor:
    """Each patch's influence on the last token, the mean over modules and draws.

    Args:
        calls: of attention modules, in one pass over one row without padding.
        first_patch: the column of the first patch; the others follow in reading order.
        grid: rows and columns of patches.
        patches: numbers of those to be measured, in reading order; all of them by default.
        copies_bytes: bound on the copies made at once; it changes no figure but by rounding.

    Returns:
        float32 `[rows, columns]` on the CPU, or `[patches]` where some were named, each in 0..2:
        `1 - cos` of the module's output at the last token, without and with noise in the window
        around the patch.

    Raises:
        GenerationCancelled: `is_cancelled` said so; it is asked before every chunk.
    """
    noise = noise or Perturbation()
    windows = _windows(grid, noise.radius_on(grid))
    if patches is not None:
        windows = windows[list(patches)]
    total = torch.zeros(len(windows), dtype=torch.float64)
    # On the CPU, so that a seed means the same on every device.
    random = torch.Generator().manual_seed(noise.seed)
    for call in calls:
        clean = call.again(call.inputs)[0, -1].double()
        for _ in range(noise.draws):
            drawn = (
                torch.randn(windows.shape[1], call.inputs.shape[-1], generator=random) * noise.sigma
            )
            total += _turned(
                call, clean, drawn, windows, first_patch, copies_bytes, is_cancelled or _never
            )
    mean = (total / (len(calls) * noise.draws)).float()
    return mean.reshape(grid) if patches is None else mean


@torch.no_grad()
def _turned(
    call: ModuleCall,
    clean: Tensor,
    drawn: Tensor,
    windows: Tensor,
    first_patch: int,
    copies_bytes: int,
    is_cancelled: Callable[[], bool],
) -> Tensor:
    """`1 - cos` for every window under one draw: float64 `[windows]`, on the CPU."""
    inputs, patches = call.inputs, slice(first_patch, first_patch + windows.shape[1])
    size = inputs[:, patches].float().square().mean().sqrt()
    added = (drawn.to(inputs.device) * size).to(inputs.dtype)  # [patches, hidden]
    found = []
    for chunk in torch.split(windows, max(1, copies_bytes // inputs.nbytes)):
        if is_cancelled():
            raise GenerationCancelled("the attribution was cancelled")
        copies = inputs.repeat(len(chunk), 1, 1)
        copies[:, patches] += chunk.to(inputs.device, inputs.dtype)[:, :, None] * added
        output = call.again(copies)[:, -1].double()
        # Rounding may find a cosine just above one.
        found.append((1 - torch.cosine_similarity(output, clean[None], dim=-1)).clamp_min(0).cpu())
    return torch.cat(found)


def _windows(grid: tuple[int, int], radius: int) -> Tensor:
    """Which patches lie in the window around each patch: bool `[patches, patches]`."""
    rows = torch.arange(grid[0]).repeat_interleave(grid[1])
    columns = torch.arange(grid[1]).repeat(grid[0])
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_columns = (columns[:, None] - columns).abs() <= radius
    return near_rows & near_columns


def _never() -> bool:
    return False
