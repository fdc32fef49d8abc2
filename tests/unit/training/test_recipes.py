"""Whole recipes on a tiny backbone: what they write loads, and the command does what it says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from app.commands.train import app
from editing_core.checkpoint import verify_manifest
from editing_core.editable_model import EditableModel
from editing_core.editors.fitted import Fitted
from editing_core.editors.liveedit import LiveEdit
from editing_core.registry import EDITORS
from editing_core.routing.router import Router
from editing_core.training.fitted import FittedRecipe, measure_fitted
from editing_core.training.general_recipe import GeneralRecipe
from editing_core.training.recipes import (
    CONFIGS,
    EditorRecipe,
    RouterRecipe,
    choose_objective,
    gather,
    read_recipe,
    train_editor,
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


@pytest.mark.parametrize(
    ("form", "name", "left_alone"),
    [
        ("aligned", "liveedit", "other_question"),
        ("paper", "liveedit-paper", "other_question"),
        ("adapter", "visedit", "other_picture"),
    ],
)
def test_a_trained_editor_says_how_it_was_made_and_loads(
    tiny_model: EditableModel, tmp_path: Path, form: Any, name: str, left_alone: str
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

    trained = train_editor(tiny_model.backbone, recipe, out=tmp_path, work=tmp_path / "work")

    loaded = EDITORS.resolve(name).load(tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json")
    notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
    assert loaded.fingerprint == trained.fingerprint
    assert notes["steps"] == 2
    found = set(notes["exact_match_on_unseen_emblems"])
    # An adapter's batch asks each edit in other words or on another view, not both.
    assert {"edit", left_alone} < found <= {"edit", "rephrase", "view", left_alone}


def test_a_training_may_begin_with_an_editors_weights(
    tiny_model: EditableModel, tmp_path: Path
) -> None:
    recipe = EditorRecipe(
        layer=1,
        form="adapter",
        shape={"heads": 4, "width": 16},
        subjects=4,
        batch=3,
        check_batches=1,
        plan={"steps": 1, "rate": 0.0, "matrix_rate": 0.0},
    )
    material = gather(tiny_model.backbone, recipe)
    given: dict[str, Any] = {"material": material, "work": tmp_path / "work"}
    first = train_editor(tiny_model.backbone, recipe, out=tmp_path / "first", **given)
    shutil.rmtree(tmp_path / "work")
    start = tmp_path / "first" / "visedit.safetensors"
    other = replace(recipe, plan={**recipe.plan, "seed": 8})

    second = train_editor(tiny_model.backbone, other, out=tmp_path, start=start, **given)

    # Nothing was learned, so what came out is what went in.
    assert second.fingerprint == first.fingerprint


def test_the_objective_is_one_setting(tiny_model: EditableModel, tmp_path: Path) -> None:
    recipe = EditorRecipe(
        layer=1,
        form="aligned",
        shape={"heads": 4},
        subjects=4,
        batch=3,
        objective="odedit",
        objective_settings={"anneal_steps": 2, "cap": 0.8},
        check_batches=1,
        plan={"steps": 6, "report_every": 1},
    )
    reports: list[Mapping[str, float]] = []

    train_editor(
        tiny_model.backbone,
        recipe,
        out=tmp_path,
        work=tmp_path / "work",
        report=lambda share, step, figures: reports.append(figures),
    )

    notes = json.loads((tmp_path / "liveedit.json").read_text())["notes"]
    assert notes["recipe"]["objective"] == "odedit"
    told = [figures["lambda"] for figures in reports]
    assert told[:2] == [0.0, 0.0]
    assert all(0.0 < value <= 0.8 + 1e-6 for value in told[2:])
    assert all(figures["variation"] > 0.0 for figures in reports)
    assert {"reliability", "paired", "mmd", "locality", "penalty"} <= set(reports[-1])


def test_another_objective_begins_with_its_own_settings() -> None:
    recipe = read_recipe("liveedit", "heraldry", "aligned")
    assert recipe["objective_settings"] == {"locality_weight": 0.0}

    choose_objective(recipe, None, ["locality_weight=0.5"])
    assert recipe["objective_settings"] == {"locality_weight": 0.5}
    choose_objective(recipe, "odedit", ["gen=0", "kl=base_first"])

    assert recipe["objective"] == "odedit"
    assert recipe["objective_settings"] == {"gen": 0, "kl": "base_first"}
    for name, setting, error in (
        ("charm", "a=1", LookupError),
        (None, "charm=1", TypeError),
        (None, "gen", ValueError),
        (None, "power=0.5", ValueError),
    ):
        with pytest.raises(error):
            choose_objective(recipe, name, [setting])


def test_every_recipe_that_ships_can_be_read() -> None:
    for path in CONFIGS.glob("*/*.yaml"):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in document:
            if part == "statistics":
                settings = read_recipe(path.parent.name, path.stem, part)
                assert FittedRecipe(**settings).layer >= 0
                assert "plan" not in settings
                continue
            settings = read_recipe(path.parent.name, path.stem, part, steps=5)
            recipe: type[Any] = RouterRecipe if part == "router" else EditorRecipe
            if path.stem == "default":
                recipe = GeneralRecipe
            assert recipe(**settings).plan["steps"] == 5
            if part != "router":
                choose_objective(settings, None, ())
            assert "minutes" not in settings["plan"]


def test_what_is_measured_is_written_and_read_back(
    tiny_model: EditableModel, tmp_path: Path
) -> None:
    recipe = FittedRecipe(layer=1, subjects=6, shape={"rank": 4, "theta": 0.2})

    measured = measure_fitted(tiny_model.backbone, recipe, out=tmp_path)

    loaded = Fitted.load(tmp_path / "fitted.safetensors", tmp_path / "fitted.json")
    assert loaded.fingerprint == measured.fingerprint
    assert (loaded.config.theta, loaded.edit_layer) == (0.2, 1)
    notes = json.loads((tmp_path / "fitted.json").read_text())["notes"]
    assert notes == {"rows": 12, "recipe": dataclasses.asdict(recipe)}


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


def test_the_command_measures_what_is_not_trained(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    (tmp_path / "configs" / "fitted").mkdir(parents=True)
    recipe = {"statistics": {"layer": 1, "subjects": 4, "shape": {"rank": 2}}}
    (tmp_path / "configs" / "fitted" / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr("editing_core.training.recipes.CONFIGS", tmp_path / "configs")
    arguments = ["--backbone", str(checkpoint), "--recipe", "tiny", "--work", str(tmp_path / "w")]

    done = CliRunner().invoke(app, [*arguments, "--editor", "fitted"])

    assert done.exit_code == 0, done.output
    verify_manifest(checkpoint)
    editor = EditableModel.load(checkpoint, editors=("fitted",)).editors["fitted"]
    assert isinstance(editor, Fitted)
    assert editor.config.rank == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--form", "round"], "aligned, paper"),
        (["--steps", "1", "--minutes", "1"], "not both"),
        (["--editor", "nonesuch"], "nonesuch"),
        (["--editor", "fitted", "--steps", "1"], "measured"),
        (["--editor", "fitted", "--dry-run"], "measured"),
        (["--objective", "nonesuch"], "odedit"),
        (["--objective-setting", "charm=1"], "charm"),
        (["--router", "--objective", "odedit"], "own losses"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert complaint in result.output
