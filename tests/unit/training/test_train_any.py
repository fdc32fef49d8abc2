"""`errata train` on any backbone: what it says it takes, what it writes, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.commands.train import app
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from editing_core.editors.liveedit import LiveEdit
from tests.unit.training.conftest import GetFolder

TINY = ["--batch", "2", "--steps", "2", "--device", "cpu", "--validations", "1"]


def train(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def everything_in(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("editor", ["liveedit", "visedit"])
def test_a_dry_run_tells_and_writes_nothing(
    folder_of: GetFolder, records: Path, tmp_path: Path, editor: str
) -> None:
    model = folder_of("qwen2_5_vl")
    before = everything_in(model)

    code, told = train(
        "--model", model, "--editor", editor, "--dataset", "vlkeb", "--path", records,
        "--work", tmp_path / "work", "--dry-run", *TINY, "--dtype", "bf16",
    )  # fmt: skip

    assert code == 0, told
    for line in (
        "parameters, frozen                            │ 103,584",
        "edits to train on                             │ 5",
        "edits held out                                │ 1",
        "edit layer                                    │ 2",
        "(bf16)",
        "s on cpu",
        "nothing was written",
    ):
        assert line in told
    assert everything_in(model) == before
    assert not (tmp_path / "work").exists()


def test_a_dry_run_needs_no_weights(folder_of: GetFolder, records: Path, tmp_path: Path) -> None:
    model = tmp_path / "described"
    shutil.copytree(folder_of("qwen2_5_vl"), model)
    (model / "model.safetensors").unlink()

    code, told = train(
        "--model", model, "--dataset", "vlkeb", "--path", records, "--dry-run", *TINY
    )

    assert code == 0, told
    assert "103,584" in told
    assert "not measured" in told


def test_a_dry_run_counts_a_large_model_from_its_configuration(
    folder_of: GetFolder, records: Path, tmp_path: Path
) -> None:
    """Qwen2.5-VL 7B, which has 8,292,166,656 parameters, without a byte of them."""
    model = tmp_path / "described"
    shutil.copytree(folder_of("qwen2_5_vl"), model)
    (model / "model.safetensors").unlink()
    config = json.loads((model / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    text |= {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
    text["rope_parameters"]["mrope_section"] = [16, 24, 24]
    del text["layer_types"]
    vision |= {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    vision |= {"out_hidden_size": 3584, "patch_size": 14}
    (model / "config.json").write_text(json.dumps(config))

    code, told = train(
        "--model", model, "--dataset", "vlkeb", "--path", records, "--dry-run", "--dtype", "bf16"
    )

    assert code == 0, told
    assert "8,292,166,656" in told
    assert "15.45 GiB (bf16)" in told


def test_a_run_goes_on_and_what_it_writes_lies_beside_the_model(
    folder_of: GetFolder, records: Path, tmp_path: Path
) -> None:
    model, work = tmp_path / "model", tmp_path / "work"
    shutil.copytree(folder_of("qwen2_5_vl"), model)
    base = load_backbone(find_checkpoint(model), Placement.resolve()).fingerprint
    arguments: list[str | Path] = [
        "--model", model, "--dataset", "vlkeb", "--path", records, "--work", work, *TINY,
    ]  # fmt: skip

    code, told = train(*arguments, "--steps", "1", "--out", tmp_path / "half")
    assert code == 0, told
    code, told = train(*arguments)
    assert code == 0, told

    assert "validation.jsonl" in told
    made = LiveEdit.load(model / "liveedit.safetensors", model / "liveedit.json")
    assert made.backbone_fingerprint == base
    # What lies beside the model is no part of it: it is still the model that it was made for.
    assert load_backbone(find_checkpoint(model), Placement.resolve()).fingerprint == base


def test_the_drawn_world_trains_any_backbone(folder_of: GetFolder, tmp_path: Path) -> None:
    code, told = train(
        "--model", folder_of("blip-2"), "--limit", "8", "--hold-out", "0", "--out", tmp_path,
        "--work", tmp_path / "work", *TINY,
    )  # fmt: skip
    assert code == 0, told
    assert (tmp_path / "liveedit.safetensors").is_file()


def test_another_plan_in_the_same_folder_is_refused(
    folder_of: GetFolder, records: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path] = [
        "--model", folder_of("qwen2_5_vl"), "--dataset", "vlkeb", "--path", records,
        "--out", tmp_path / "out", "--work", tmp_path / "work", *TINY,
    ]  # fmt: skip
    assert train(*arguments)[0] == 0

    code, told = train(*arguments, "--layer", "1")
    assert code == 1
    assert "editor.edit_layer is 2 there and 1 here" in told
    assert "--no-resume" in told
    assert train(*arguments, "--layer", "1", "--no-resume")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--router"], 2, "embedded world only"),
        (["--dataset", "vlkeb"], 2, "folder of a published dataset"),
        (["--dataset", "nonesuch", "--path", "x"], 2, "evqa"),
        (["--layer", "3", "--limit", "4", "--out", "out"], 1, "none to edit at"),
        (["--recipe", "heraldry", "--limit", "4", "--out", "out"], 1, "not one for any backbone"),
        (["--device", "abacus", "--out", "out"], 1, "abacus"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    folder_of: GetFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, told = train("--model", folder_of("qwen2_5_vl"), *arguments)
    assert found == code, told
    assert complaint in " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--validations", "2"], 2, "--device auto"),
        (["--recipe", "default"], 1, "not one for the embedded world"),
    ],
)
def test_what_the_embedded_world_does_not_know_is_refused(
    folder_of: GetFolder, tmp_path: Path, arguments: list[str], code: int, complaint: str
) -> None:
    found, told = train("--model", folder_of("llava"), "--work", tmp_path, *arguments)
    assert found == code, told
    assert complaint in " ".join(told.replace("│", " ").split())
