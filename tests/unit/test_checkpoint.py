from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from editing_core.checkpoint import (
    CheckpointLayout,
    fingerprint_files,
    verify_manifest,
    write_manifest,
)
from editing_core.editable_model import EditableModel
from editing_core.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    FingerprintMismatch,
    UnknownArchitecture,
)
from tests.support.tiny_model import save_tiny_checkpoint


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_a_sound_checkpoint_passes(checkpoint: Path) -> None:
    listed = verify_manifest(checkpoint)
    assert {"model/model.safetensors", "clip/config.json", "router.json"} <= set(listed)


@pytest.mark.parametrize(
    "name",
    [
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "clip/model.safetensors",
        "router.safetensors",
        "liveedit.safetensors",
        "liveedit.json",
    ],
)
def test_a_changed_byte_is_refused_by_the_name_of_its_file(checkpoint: Path, name: str) -> None:
    flip_byte(checkpoint / name)
    with pytest.raises(CheckpointCorrupt, match=name.replace("/", ".")):
        EditableModel.load(checkpoint)


def test_a_missing_and_an_added_file_are_refused_by_name(checkpoint: Path) -> None:
    (checkpoint / "model" / "extra.json").write_text("{}")
    with pytest.raises(CheckpointCorrupt, match=r"extra\.json"):
        EditableModel.load(checkpoint)
    (checkpoint / "model" / "extra.json").unlink()
    (checkpoint / "router.json").unlink()
    with pytest.raises(CheckpointMissing, match=r"router\.json"):
        EditableModel.load(checkpoint)


@pytest.mark.parametrize("text", ["", "[]", '{"sha256": []}', '{"files": {}}'])
def test_a_broken_manifest_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "MANIFEST.json").write_text(text)
    with pytest.raises(CheckpointCorrupt, match="manifest"):
        verify_manifest(checkpoint)


def test_a_laid_out_checkpoint_needs_a_manifest(checkpoint: Path) -> None:
    (checkpoint / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointMissing, match=r"MANIFEST\.json"):
        EditableModel.load(checkpoint)


def test_prose_may_change(checkpoint: Path) -> None:
    (checkpoint / "README.md").write_text("a better card")
    verify_manifest(checkpoint)


def test_a_truncated_weight_file_without_a_manifest_is_refused(checkpoint: Path) -> None:
    weights = checkpoint / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointCorrupt, match=r"model\.safetensors"):
        EditableModel.load(checkpoint / "model")


def test_weights_that_are_not_there_are_never_made_up(checkpoint: Path) -> None:
    path = checkpoint / "model" / "model.safetensors"
    weights = load_file(path)
    del weights["language_model.model.norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointCorrupt, match=r"missing keys.*norm"):
        EditableModel.load(checkpoint / "model")


@pytest.mark.parametrize(
    ("config", "error"),
    [("not json", CheckpointCorrupt), ("{}", CheckpointCorrupt), ("[]", CheckpointCorrupt)],
)
def test_a_damaged_configuration_is_refused(
    checkpoint: Path, config: str, error: type[Exception]
) -> None:
    (checkpoint / "model" / "config.json").write_text(config)
    with pytest.raises(error, match=r"config\.json"):
        EditableModel.load(checkpoint / "model")


def test_an_unknown_family_is_refused_by_name(checkpoint: Path) -> None:
    path = checkpoint / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "no_such_family"}))
    with pytest.raises(UnknownArchitecture, match="no_such_family"):
        EditableModel.load(checkpoint / "model")


def test_a_folder_without_a_model_or_router_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointMissing, match=r"config\.json"):
        EditableModel.load(tmp_path / "empty")
    with pytest.raises(CheckpointMissing, match=r"router\.safetensors"):
        EditableModel.load(checkpoint / "model")


def test_parts_of_two_checkpoints_do_not_mix(checkpoint: Path, tmp_path: Path) -> None:
    other = save_tiny_checkpoint(tmp_path / "other", seed=1)

    def swap(*names: str) -> Callable[[], EditableModel]:
        for name in names:
            shutil.copy(other / name, checkpoint / name)
        write_manifest(checkpoint)
        return lambda: EditableModel.load(checkpoint)

    load = swap("liveedit.safetensors", "liveedit.json")
    with pytest.raises(FingerprintMismatch, match="liveedit"):
        load()
    load = swap("router.safetensors", "router.json")
    with pytest.raises(FingerprintMismatch, match="router"):
        load()
    load = swap("model/model.safetensors", "clip/model.safetensors")
    assert load().backbone_fingerprint == EditableModel.load(other).backbone_fingerprint


def test_a_fingerprint_depends_on_bytes_not_on_places(checkpoint: Path, tmp_path: Path) -> None:
    layout = CheckpointLayout(checkpoint)
    before = fingerprint_files(layout.model)
    moved = Path(shutil.copytree(layout.model, tmp_path / "elsewhere"))
    (moved / "README.md").write_text("prose")
    assert fingerprint_files(moved) == before
    flip_byte(moved / "config.json")
    assert fingerprint_files(moved) != before
    assert layout.clip is not None
    assert fingerprint_files(layout.model, layout.clip) != before
    assert CheckpointLayout(moved).clip is None


def test_an_editor_nobody_registered_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(LookupError, match=r"known: .*liveedit"):
        EditableModel.load(tiny_checkpoint, editors=("telepathy",))
