"""Frozen settings of the library: limits, and where and how precisely a model runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["none", "int8", "int4"]

MAX_TARGET_TOKENS = 64
"""Longest answer an edit may teach, stop token included."""

DEFAULT_MODEL = "heraldry"
"""Name of the embedded model."""

_QUANTIZATIONS: dict[str, Quantization] = {"int8": "int8", "int4": "int4"}
_QUANTIZING = ("bitsandbytes", "accelerate")
_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and floating-point type, with `auto` already decided, and how weights are packed.

    `quantization` is of the language model's matrices (`backbones/weights.py`); all else has
    `dtype`.
    """

    device: torch.device
    dtype: torch.dtype
    quantization: Quantization = "none"

    @classmethod
    def resolve(
        cls, device: str = "cpu", dtype: str = "fp32", quantization: str = "none"
    ) -> Placement:
        """Decide `auto`: the best device present; half precision on an accelerator only.

        Raises `ValueError` on an unknown name and `RuntimeError` when the device is not there, or
        what quantisation needs.
        """
        chosen = _resolve_device(device)
        if dtype == "auto":
            precision = _automatic_dtype(chosen)
        elif dtype in _TORCH_DTYPES:
            precision = _TORCH_DTYPES[dtype]
        else:
            raise ValueError(f"unknown dtype {dtype!r}; known: auto, {', '.join(_TORCH_DTYPES)}")
        return cls(chosen, precision, _check_quantization(quantization, chosen))

    @property
    def dtype_name(self) -> str:
        return next(name for name, dtype in _TORCH_DTYPES.items() if dtype == self.dtype)


def _check_quantization(name: str, device: torch.device) -> Quantization:
    if name == "none":
        return "none"
    if name not in _QUANTIZATIONS:
        raise ValueError(f"unknown quantization {name!r}; known: none, {', '.join(_QUANTIZATIONS)}")
    if device.type != "cuda":
        raise RuntimeError(
            f"quantization {name!r} needs a CUDA device, and the model is to run on {device.type}; "
            "leave it out, or give --device cuda where there is one"
        )
    missing = [package for package in _QUANTIZING if find_spec(package) is None]
    if missing:
        raise RuntimeError(
            f"quantization {name!r} needs {' and '.join(missing)}: pip install 'errata[quantize]'"
        )
    return _QUANTIZATIONS[name]


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {name!r}; known: auto, cpu, cuda, mps")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device.type]:
        raise RuntimeError(f"device {name!r} is not available on this machine")
    return device


def _automatic_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32
