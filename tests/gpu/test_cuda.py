"""The whole path on a CUDA device: the same promises, in another arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.types import Sampling
from tests.support.edits import snapshot_with
from tests.support.tiny_model import tiny_image

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
IMAGE, PROMPT = tiny_image(0), "Is the star blue?"


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("editor", ["liveedit", "liveedit-paper"])
def test_edits_fire_and_others_are_left_alone(
    tiny_checkpoint: Path, dtype: str, editor: str
) -> None:
    model = EditableModel.load(tiny_checkpoint, device="cuda", dtype=dtype, editors=(editor,))
    active = snapshot_with(model, IMAGE, PROMPT, "the blue", editor=editor)
    sampling = Sampling(max_new_tokens=8)
    rows = [
        GenerationRow(PROMPT, IMAGE, sampling, active),
        GenerationRow(PROMPT, tiny_image(5), sampling, active),
        GenerationRow(PROMPT, None, sampling, active),
    ]
    edited, other, text_only = model.generate(rows)
    assert [c.edit_id for c in edited.decision.applied] == ["e1"]
    assert other.decision.candidates == text_only.decision.candidates == ()


def test_cached_decoding_is_the_teacher_forced_edited_forward(tiny_checkpoint: Path) -> None:
    model = EditableModel.load(tiny_checkpoint, device="cuda")
    active = snapshot_with(model, IMAGE, PROMPT, "the blue")
    row = GenerationRow(PROMPT, IMAGE, Sampling(max_new_tokens=16), active)
    result = model.generate([row])[0]
    logits = model.token_logits(row, result.token_ids)
    assert logits.argmax(-1).tolist() == list(result.token_ids)
