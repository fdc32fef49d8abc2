"""How an expert's numbers are rounded to be stored: to float16, beyond it times a power of two.

States of some models lie beyond float16, whose range ends at 65,504, and so do their experts.
A tensor that float16 can hold is float16. One that it cannot hold is float32, with no more digits
than float16 has: what is left once a power of two has brought its largest number into float16.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_BITS = 16
"""Numbers below 2 to this power fit float16, but for those that are rounded up to it."""


def rounded(tensor: Tensor) -> Tensor:
    """As it is stored: float16, or float32 where that would make infinity of a number.

    NaN and infinity stay what they are. On the tensor's device.
    """
    half, exponent = _split(tensor.detach())
    return joined(half, exponent) if exponent else half


def rounded_payload(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each as it is stored, on the CPU."""
    return {name: rounded(tensor).cpu().contiguous() for name, tensor in tensors.items()}


def split(tensor: Tensor) -> tuple[Tensor, int]:
    """A rounded tensor as float16, and the power of two that it is to be multiplied by.

    Raises `ValueError` on a tensor that is not rounded.
    """
    half, exponent = _split(tensor)
    if not is_rounded(tensor, exponent):
        raise ValueError("it is not rounded as stored tensors are")
    return half, exponent


def is_rounded(tensor: Tensor, exponent: int) -> bool:
    """Whether it is one that `split` takes, to this exponent."""
    half, found = _split(tensor)
    same = joined(half, found) if found else half
    return found == exponent and same.dtype == tensor.dtype and torch.equal(same, tensor)


def joined(half: Tensor, exponent: int) -> Tensor:
    """The inverse of `split`, float32."""
    return torch.ldexp(half.float(), torch.tensor(exponent, device=half.device))


def _split(tensor: Tensor) -> tuple[Tensor, int]:
    half = tensor.to(torch.float16)
    if not bool((half.isinf() & tensor.isfinite()).any()) or not bool(tensor.isfinite().all()):
        return half, 0
    largest = tensor.abs().amax().double()
    exponent = int(torch.frexp(largest).exponent) - _BITS
    half = _scaled(tensor, exponent)
    return (_scaled(tensor, exponent + 1), exponent + 1) if half.isinf().any() else (half, exponent)


def _scaled(tensor: Tensor, exponent: int) -> Tensor:
    return (tensor.double() * 2.0**-exponent).to(torch.float16)
