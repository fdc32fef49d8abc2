"""Whole recipes on a tiny backbone: what they write loads, and the command does what it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.commands.train import app
from editing_core.checkpoint import verify_manifest
from editing_core.editable_model import EditableModel
from editing_core.editors.liveedit import LiveEdit
from editing_core.routing.router import Router
from editing_core.training.recipes import (
    CONFIGS,
    EditorRecipe,
    RouterRecipe,
    read_recipe,
    train_liveedit,
    train_router,
)

SHAPE = {"width": 16, "heads": 4}


def router_recipe(**plan: Any) -> RouterRecipe:
    return RouterRecipe(
        layer=1,
        shape=SHAPE,
        subjects=4,
        questions=3,
        batch=2,
        picture_subjects=3,
        picture_questions=2,
        picture_batch=2,
        calibration_subjects=3,
        calibration_pictures=4,
        plan={"steps": 2, **plan},
    )


def test_a_trained_router_is_calibrated_and_loads(
    tiny_model: EditableModel, tmp_path: Path
) -> None:
    trained = train_router(
        tiny_model.backbone, router_recipe(), out=tmp_path, work=tmp_path / "work"
    )

    loaded = Router.load(tmp_path / "router.safetensors", tmp_path / "router.json")
    assert loaded.fingerprint == trained.fingerprint
    assert loaded.thresholds == trained.thresholds
    assert loaded.backbone_fingerprint == tiny_model.backbone_fingerprint
    assert loaded.false_fire_rate is not None
    assert 0.05 <= loaded.rho <= 0.95
    assert set(loaded.figures) >= {"tau_own_kept", "own_fires", "look_alike_stays_quiet"}
    EditableModel(tiny_model.backbone, loaded, tiny_model.editors)


def test_states_are_computed_once(tiny_model: EditableModel, tmp_path: Path) -> None:
    first = train_router(tiny_model.backbone, router_recipe(), out=tmp_path, work=tmp_path / "work")
    (folder,) = (tmp_path / "work").iterdir()  # one for each base model
    shutil.rmtree(folder / "checkpoints")
    banks = {p: p.stat().st_mtime_ns for p in (folder / "bank").iterdir()}

    second = train_router(
        tiny_model.backbone, router_recipe(), out=tmp_path, work=tmp_path / "work"
    )

    assert {p: p.stat().st_mtime_ns for p in banks} == banks
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize(("form", "name"), [("aligned", "liveedit"), ("paper", "liveedit-paper")])
def test_a_trained_editor_says_how_it_was_made_and_loads(
    tiny_model: EditableModel, tmp_path: Path, form: Any, name: str
) -> None:
    recipe = EditorRecipe(
        layer=1,
        form=form,
        shape={"heads": 4, "width": 16},
        subjects=4,
        batch=3,
        check_batches=1,
        plan={"steps": 2},
    )

    trained = train_liveedit(tiny_model.backbone, recipe, out=tmp_path, work=tmp_path / "work")

    loaded = LiveEdit.load(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json")
    notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
    assert loaded.fingerprint == trained.fingerprint
    assert notes["steps"] == 2
    assert set(notes["exact_match_on_unseen_emblems"]) == {
        "edit",
        "rephrase",
        "view",
        "other_question",
    }


def test_every_recipe_that_ships_can_be_read() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in document:
            settings = read_recipe(path.parent.name, path.stem, part, steps=5)
            recipe = RouterRecipe if part == "router" else EditorRecipe
            assert recipe(**settings).plan["steps"] == 5
            assert "minutes" not in settings["plan"]


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(LookupError, match="nonesuch"):
        read_recipe("liveedit", "nonesuch", "router")
    with pytest.raises(LookupError, match="it has: router"):
        read_recipe("liveedit", "heraldry", "nonesuch")


def test_the_command_writes_a_part_into_a_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    before = LiveEdit.load(checkpoint / "liveedit.safetensors", checkpoint / "liveedit.json")
    recipes = tmp_path / "configs" / "liveedit"
    recipes.mkdir(parents=True)
    plan = {"minutes": 5, "seed": 7}
    small = {"layer": 1, "form": "aligned", "shape": {"heads": 4}, "subjects": 4, "batch": 3}
    (recipes / "tiny.yaml").write_text(
        yaml.safe_dump({"aligned": {**small, "check_batches": 1, "plan": plan}})
    )
    monkeypatch.setattr("editing_core.training.recipes.CONFIGS", tmp_path / "configs")
    arguments = ["--backbone", str(checkpoint), "--recipe", "tiny", "--work", str(tmp_path / "w")]

    dry = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "nothing was written" in dry.output
    unchanged = LiveEdit.load(checkpoint / "liveedit.safetensors", checkpoint / "liveedit.json")
    assert unchanged.fingerprint == before.fingerprint

    real = CliRunner().invoke(app, [*arguments, "--steps", "2"])
    assert real.exit_code == 0, real.output
    verify_manifest(checkpoint)
    after = EditableModel.load(checkpoint).editor_fingerprints["liveedit"]
    assert after != before.fingerprint


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--form", "round"], "aligned, paper"),
        (["--steps", "1", "--minutes", "1"], "not both"),
        (["--editor", "nonesuch"], "nonesuch"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert complaint in result.output
