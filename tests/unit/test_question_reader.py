"""The fast reader makes the keys of the network whose weights it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MPNetConfig, MPNetModel

from editing_core.questions import reader as module
from editing_core.questions.encoder import read_base
from editing_core.questions.reader import BertReader, pooled, reader_of
from tests.support.tiny_questions import write_base

TEXTS = ([2, 5, 6, 7, 8, 3], [2, 14, 15, 3], [2, 5, 6, 7, 12, 9, 10, 16, 3])


def padded(pieces: Any) -> dict[str, torch.Tensor]:
    width = max(len(text) for text in pieces)
    rows = [[*text, *[0] * (width - len(text))] for text in pieces]
    mask = [[1] * len(text) + [0] * (width - len(text)) for text in pieces]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize(("bfloat16", "atol"), [(False, 1e-6), (True, 2e-2)])
def test_keys_are_those_of_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bfloat16: bool, atol: float
) -> None:
    monkeypatch.setattr(module, "_multiplies_bfloat16", lambda: bfloat16)
    network, _ = read_base(write_base(tmp_path))
    read = reader_of(network.eval(), padded)
    assert isinstance(read, BertReader)
    keys = read(TEXTS)
    with torch.no_grad():
        np.testing.assert_allclose(keys, pooled(network, padded(TEXTS)), atol=atol)
    np.testing.assert_allclose(read(TEXTS[1:2])[0], keys[1], atol=atol)


def test_another_kind_of_network_reads_for_itself() -> None:
    torch.manual_seed(0)
    shape = MPNetConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    network = MPNetModel(shape).eval()
    keys = reader_of(network, padded)(TEXTS)
    assert keys.shape == (3, 16)
    np.testing.assert_allclose(keys.norm(dim=1), 1.0, atol=1e-5)
