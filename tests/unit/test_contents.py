"""A model's name: what it holds, not how its folder is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from editing_core.backbones.loading import backbone_fingerprint, find_checkpoint
from editing_core.checkpoint import CheckpointLayout, fingerprint_files
from editing_core.contents import fingerprint_contents
from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from tests.support.plain_llava import save_plain_llava

EMBEDDED_NAME = "sha256:4c127459d7fcf2ff6fa219ecf4604d3a3e304349aa30083dad5ad61b5bc6115f"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_plain_llava(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def rewrite(file: Path, **changes: object) -> None:
    document = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(document | changes, indent=7), "utf-8")


def note(folder: Path) -> None:
    for name in ("LICENSE.txt", "training_args.json", "trainer_state.json", "other.safetensors"):
        (folder / name).write_text("{}")


def reshard(folder: Path) -> None:
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2


def write_json_anew(folder: Path) -> None:
    rewrite(folder / "config.json", transformers_version="4.0.0", _name_or_path="/elsewhere")
    rewrite(folder / "tokenizer.json")


@pytest.mark.parametrize("change", [note, reshard, write_json_anew])
def test_what_changes_nothing_changes_no_name(folder: Path, change: Callable[[Path], None]) -> None:
    before = backbone_fingerprint(CheckpointLayout(folder))
    change(folder)
    assert backbone_fingerprint(CheckpointLayout(folder)) == before


def change_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)].view(-1)[-1] += 1
    save_file(weights, folder / "model.safetensors")


def change_a_type(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[min(weights)] = weights[min(weights)].to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors")


def exchange_two_names(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    first, second, *_ = sorted(name for name in weights if name.endswith("layer_norm1.weight"))
    weights[first], weights[second] = weights[second] * 1.5, weights[first]
    save_file(weights, folder / "model.safetensors")


def change_a_setting(folder: Path) -> None:
    rewrite(folder / "config.json", vision_feature_layer=-1)


def change_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize(
    "change",
    [
        change_a_number,
        change_a_type,
        exchange_two_names,
        change_a_setting,
        change_the_template,
        lambda folder: rewrite(folder / "tokenizer.json", added_tokens=[]),
    ],
)
def test_what_decides_an_answer_changes_the_name(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = fingerprint_contents(folder)
    change(folder)
    assert fingerprint_contents(folder) != before


def test_two_folders_have_one_name_in_their_order(saved: Path, folder: Path) -> None:
    change_a_number(folder)
    assert fingerprint_contents(saved, folder) != fingerprint_contents(folder, saved)
    assert fingerprint_contents(saved, folder) != fingerprint_contents(saved)


def test_the_embedded_model_keeps_the_name_that_edits_know() -> None:
    assert backbone_fingerprint(find_checkpoint(None)) == EMBEDDED_NAME


def test_parts_that_an_earlier_release_measured_stay_valid(folder: Path, tmp_path: Path) -> None:
    layout, parts = CheckpointLayout(folder), tmp_path / "parts"
    (parts / ("0" * 64)).mkdir(parents=True)  # another model's
    now = backbone_fingerprint(layout, parts=parts)
    assert now == fingerprint_contents(folder)

    earlier = fingerprint_files(folder)
    (parts / earlier.removeprefix("sha256:")).mkdir()
    assert backbone_fingerprint(layout, parts=parts) == earlier
    (parts / now.removeprefix("sha256:")).mkdir()
    assert backbone_fingerprint(layout, parts=parts) == now


def test_damaged_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:4], b"\xff" * 8 + whole[8:], b"\x03" + bytes(7) + b"[1]"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointCorrupt, match=r"model\.safetensors"):
            fingerprint_contents(folder)
    weights.unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(CheckpointMissing, match="00001"):
        fingerprint_contents(folder)
    index.write_text("[]")
    with pytest.raises(CheckpointCorrupt, match="index"):
        fingerprint_contents(folder)
