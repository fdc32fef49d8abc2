"""Seconds and memory of a piece of work, on a device that works while Python goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks.large_model_page import HELD, PEAK, SECONDS, Cells

_GIB = 2**30
_UNKNOWN = "not measured"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def stage(device: torch.device) -> Iterator[Cells]:
    """Seconds of the block, and memory on CUDA; the cells are there once it ended."""
    on_gpu = device.type == "cuda"
    cells: Cells = {}
    synchronise(device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    yield cells
    synchronise(device)
    cells[SECONDS] = time.perf_counter() - began
    cells[HELD] = torch.cuda.memory_allocated(device) / _GIB if on_gpu else _UNKNOWN
    cells[PEAK] = torch.cuda.max_memory_allocated(device) / _GIB if on_gpu else _UNKNOWN
