"""`benchmarks.large_model` on a CUDA device: the tiny shape, with memory measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import large_model_page as page
from benchmarks.large_model import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_memory_is_measured_and_edits_fire(tmp_path: Path) -> None:
    out = tmp_path / "page.md"

    main(["--shape", "tiny", "--edits", "1", "--out", str(out)])

    figures = json.loads(out.with_suffix(".json").read_text("utf-8"))["figures"]
    assert all(cells[page.PEAK] > 0 for cells in figures[page.STAGES].values())
    for side in page.FIRED.values():
        assert figures[page.ANSWERS][f"batch 8, {side}"][page.ACTED] == "8 of 8"
