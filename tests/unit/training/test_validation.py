"""Validation: the benchmark's metrics on held-out edits, a line a time, the best kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.editors.liveedit import LiveEdit
from editing_core.training.checkpoint import Progress
from editing_core.training.general_recipe import GeneralRecipe, train_on
from editing_core.training.sources import DatasetEdits, dataset_edits
from editing_core.training.validation import Validation, validate
from editing_core.types import Sampling
from tests.support.edits import snapshot_with

EXPECTED = {
    "reliability, exact match",
    "reliability, token accuracy",
    "text generality, exact match",
    "text generality, token accuracy",
    "image generality, exact match",
    "image generality, token accuracy",
    "image locality kept, exact match",
}


@pytest.fixture(scope="module")
def edits(records: Path) -> tuple[DatasetEdits, DatasetEdits]:
    training, held_out = dataset_edits("vlkeb", records, hold_out=1)
    assert held_out is not None
    return training, held_out


@pytest.mark.parametrize("name", ["liveedit", "liveedit-paper", "visedit"])
def test_figures_are_those_of_the_served_model(
    tiny_model: EditableModel, edits: tuple[DatasetEdits, DatasetEdits], name: str
) -> None:
    """Where the router lets the edit in with weight 1, as it does for its own question."""
    editor: Any = tiny_model.editors[name]
    held_out = edits[1]
    figures = validate(editor, tiny_model.backbone, held_out, [0])

    assert set(figures) == EXPECTED
    edit = held_out.draw(0, None, locality="none")  # type: ignore[arg-type]
    own = edit.probes[0]
    assert own.image is not None
    snapshot = snapshot_with(tiny_model, own.image, own.prompt, edit.target, editor=name)
    row = GenerationRow(own.prompt, own.image, Sampling(), snapshot)
    ids = tiny_model.backbone.encode_target(edit.target)
    chosen = tiny_model.token_logits(row, ids).argmax(-1).tolist()
    share = sum(a == b for a, b in zip(chosen, ids, strict=True)) / len(ids)
    assert figures["reliability, token accuracy"] == pytest.approx(share)
    answer = tiny_model.generate([row])[0]
    is_right = answer.text == edit.target and answer.finish_reason == "stop"
    assert figures["reliability, exact match"] == float(is_right)


class Killed(Exception):
    """Stands for a kill."""


def test_a_training_is_watched_and_its_best_kept(
    tiny_model: EditableModel, edits: tuple[DatasetEdits, DatasetEdits], tmp_path: Path
) -> None:
    recipe = GeneralRecipe(
        form="aligned",
        shape={"heads": 4},
        batch=2,
        validations=2,
        plan={"steps": 4, "checkpoint_seconds": 0.0, "report_every": 1},
    )
    training, held_out = edits

    def run(folder: str, *, killed_at: int | None = None, watched: bool = True) -> LiveEdit:
        def report(share: float, step: int, figures: Mapping[str, float]) -> None:
            if step == killed_at:
                raise Killed

        trained = train_on(
            tiny_model.backbone,
            recipe,
            training,
            held_out=held_out if watched else None,
            out=tmp_path / folder / "out",
            work=tmp_path / folder,
            report=report,
        )
        assert isinstance(trained, LiveEdit)
        return trained

    watched = run("watched")
    lines = lines_of(tmp_path / "watched")
    assert [(line["step"], line["part"]) for line in lines] == [(2, 1), (4, 2)]
    assert all(set(line) > EXPECTED for line in lines)
    assert watched.fingerprint == run("alone", watched=False).fingerprint
    best = tmp_path / "watched" / "best" / "liveedit"
    kept = LiveEdit.load(best.with_suffix(".safetensors"), best.with_suffix(".json"))
    assert kept.backbone_fingerprint == tiny_model.backbone_fingerprint

    with pytest.raises(Killed):
        run("killed", killed_at=3)
    run("killed")
    for line, other in zip(lines_of(tmp_path / "killed"), lines, strict=True):
        assert line | {"seconds": 0} == other | {"seconds": 0}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "validation.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_lines_after_a_resumed_step_are_made_again(
    tiny_model: EditableModel, edits: tuple[DatasetEdits, DatasetEdits], tmp_path: Path
) -> None:
    editor: Any = tiny_model.editors["liveedit"]

    def watch() -> Validation:
        return Validation(editor, tiny_model.backbone, edits[1], tmp_path, times=2, cases=1)

    first = watch()
    first(Progress(2, 1.0), 0.5)
    first(Progress(4, 2.0), 1.0)
    again = watch()  # resumed at step 3
    again(Progress(4, 2.5), 1.0)

    assert [(line["step"], line["seconds"]) for line in lines_of(tmp_path)] == [(2, 1.0), (4, 2.5)]
    assert all(bool(torch.isfinite(p).all()) for p in editor.module.parameters())
