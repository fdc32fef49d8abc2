"""EfficientNet-Lite0, as far as its pooled features: a small network that has seen photographs.

Source: Tan and Le, EfficientNet, ICML 2019; the Lite variant has no squeeze-and-excitation and
ReLU6 for swish. Weights were trained on ImageNet in TensorFlow, whose "same" padding puts the odd
pixel after. Batch norms are folded into their convolutions: a third less to compute.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from editing_core.errors import CheckpointCorrupt

_STAGES = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280
_EPSILON = 1e-3

TAPS = (4, 10, 15)
"""Blocks whose output is a feature too, beside the last layer's."""


class Network(nn.Module):
    """Frozen. Pixels `[n, 3, side, side]` of 0 to 255 become a map of each tap and of the end."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.stem = _convolution(weights, "_conv_stem", "_bn0", stride=2)
        blocks: list[_Block] = []
        channels = _STEM
        for repeats, _, stride, expansion, out in _STAGES:
            for repeat in range(repeats):
                blocks.append(
                    _Block(
                        weights,
                        f"_blocks.{len(blocks)}",
                        stride=stride if repeat == 0 else 1,
                        expands=expansion > 1,
                        adds=repeat > 0 and channels == out,
                    )
                )
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.head = _convolution(weights, "_conv_head", "_bn1")
        self.requires_grad_(False).eval()
        # Twice as fast on a CPU, where most of these convolutions are depthwise.
        for module in self.modules():
            if isinstance(module, _Same):
                weight = module.weight.data
                module.weight.data = weight.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Maps `[n, channels, rows, columns]`, in the order of `TAPS`, then the last layer's."""
        shown = ((pixels - 127.0) / 128.0).contiguous(memory_format=torch.channels_last)
        state = F.relu6(self.stem(shown))
        maps = []
        for number, block in enumerate(self.blocks):
            state = block(state)
            if number in TAPS:
                maps.append(state)
        return [*maps, F.relu6(self.head(state))]


class _Block(nn.Module):
    """An inverted residual: widen, look at the neighbourhood, narrow."""

    def __init__(
        self, weights: Mapping[str, Tensor], name: str, *, stride: int, expands: bool, adds: bool
    ) -> None:
        super().__init__()
        self.adds = adds
        self.widen = None
        if expands:
            self.widen = _convolution(weights, f"{name}._expand_conv", f"{name}._bn0")
        self.look = _convolution(
            weights, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, is_depthwise=True
        )
        self.narrow = _convolution(weights, f"{name}._project_conv", f"{name}._bn2")

    def forward(self, state: Tensor) -> Tensor:
        inner = state if self.widen is None else F.relu6(self.widen(state))
        inner = self.narrow(F.relu6(self.look(inner)))
        return inner + state if self.adds else inner  # type: ignore[no-any-return]


class _Same(nn.Conv2d):
    """A convolution whose output has the input's size divided by the stride, rounded up."""

    def forward(self, state: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(state, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in state.shape[2:]]
        (high, wide) = missing
        edges = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        return F.conv2d(F.pad(state, edges), self.weight, self.bias, stride, 0, 1, self.groups)


def _convolution(
    weights: Mapping[str, Tensor],
    name: str,
    norm: str,
    *,
    stride: int = 1,
    is_depthwise: bool = False,
) -> _Same:
    """The convolution with the batch norm that follows it in one. Raises `CheckpointCorrupt`."""
    try:
        weight = weights[f"{name}.weight"].float()
        scale, shift = weights[f"{norm}.weight"].float(), weights[f"{norm}.bias"].float()
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        scale = scale / torch.sqrt(variance.float() + _EPSILON)
        out, inner, kernel, _ = weight.shape
        folded = _Same(
            out if is_depthwise else inner,
            out,
            kernel,
            stride,
            groups=out if is_depthwise else 1,
        )
        folded.weight.data = weight * scale[:, None, None, None]
        assert folded.bias is not None
        folded.bias.data = shift - mean.float() * scale
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointCorrupt(f"the eyes' base has no such layer as {name}: {error}") from error
    return folded
