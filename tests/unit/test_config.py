from __future__ import annotations

import pytest
import torch

from editing_core.backbones.weights import quantising
from editing_core.config import Placement, Quantization


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


def test_quantisation_is_told_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="known: none, int8, int4"):
        Placement.resolve("cpu", quantization="int3")
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        Placement.resolve("cpu", quantization="int4")


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_quantised_weights_are_read_to_where_they_stay(bits: Quantization) -> None:
    """What makes image keys is left as it is, and so is the head."""
    placement = Placement(torch.device("cuda"), torch.bfloat16, bits)

    told = quantising(placement, ("vision_tower", "lm_head"))

    config = told["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "int8", bits == "int4")
    assert config.llm_int8_skip_modules == ["vision_tower", "lm_head"]
    assert told["device_map"] == {"": "cuda"}
    assert quantising(Placement.resolve(), ("lm_head",)) == {}
