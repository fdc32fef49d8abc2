from __future__ import annotations

import pytest
import torch

from editing_core.config import Placement


def test_names_become_a_device_and_a_type() -> None:
    placement = Placement.resolve("cpu", "bf16")
    assert placement == Placement(torch.device("cpu"), torch.bfloat16)
    assert placement.dtype_name == "bf16"


def test_auto_on_a_cpu_keeps_full_precision() -> None:
    assert Placement.resolve("cpu", "auto").dtype is torch.float32
    assert Placement.resolve("auto", "fp32").device.type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "int8"), ("meta", "fp32")])
def test_unknown_names_are_refused(device: str, dtype: str) -> None:
    with pytest.raises(ValueError, match="unknown d"):
        Placement.resolve(device, dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(RuntimeError, match="cuda"):
        Placement.resolve("cuda", "fp32")
