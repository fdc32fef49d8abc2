"""Training on a CUDA device: every editor, in half precision, on a model of another family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from editing_core.training.general_recipe import GeneralRecipe, train_on
from editing_core.training.sources import dataset_edits
from tests.support.datasets import record, write_dataset
from tests.support.tiny_families import FAMILIES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "paligemma", "blip-2"])
@pytest.mark.parametrize("form", ["aligned", "paper", "adapter"])
def test_an_editor_is_trained_resumed_and_validated(tmp_path: Path, family: str, form: Any) -> None:
    FAMILIES[family].save(tmp_path / "model")
    write_dataset(tmp_path / "data", [record(n) for n in range(1, 7)], file="train.json")
    source, held_out = dataset_edits("vlkeb", tmp_path / "data", hold_out=1)
    backbone = load_backbone(find_checkpoint(tmp_path / "model"), Placement.resolve("cuda", "bf16"))
    shape = {"heads": 4} if form == "aligned" else {"heads": 4, "width": 16}

    for steps in (2, 4):
        plan = {"steps": steps, "checkpoint_seconds": 0.0}
        recipe = GeneralRecipe(form=form, shape=shape, batch=2, validations=1, plan=plan)
        editor = train_on(
            backbone, recipe, source, held_out=held_out, out=tmp_path / "out", work=tmp_path / "w"
        )

    assert all(bool(torch.isfinite(p).all()) for p in editor.module.parameters())
    assert (tmp_path / "w" / "validation.jsonl").is_file()
