"""A plain Hugging Face folder, with nothing trained for it: measured once, then served.

The pictures and rows of a first start are cut down: random towers need no hundreds of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from app.commands import calibrate, serve
from app.locking import InstanceLock
from app.runtime import Runtime
from app.settings import Settings
from editing_core.backbones.loading import find_checkpoint, load_backbone
from editing_core.config import Placement
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import CheckpointMissing
from editing_core.first_start import measure, recalibrate
from editing_core.first_start.material import Material
from editing_core.parts import folder_of, save_calibration
from editing_core.routing.frozen_features import FrozenRouter
from tests.support.server import LiveServer, logging_restored, picture
from tests.support.tiny_families import FAMILIES
from tests.support.tiny_model import tiny_image

PLAIN = ("llava", "qwen2_5_vl")
"""One with a tower of its own for image keys, one that borrows the embedded CLIP."""


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(backbone: object, **given: object) -> Material:
        return Material(backbone, subjects=6, rows=6, **given)  # type: ignore[arg-type]

    for module in (measure, recalibrate):
        monkeypatch.setattr(module, "Material", small)


@pytest.fixture(scope="module", params=PLAIN)
def plain(
    request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "llava":
        shutil.copytree(tiny_checkpoint / "model", folder, dirs_exist_ok=True)
    else:
        FAMILIES[request.param].save(folder)
    return folder


def test_a_plain_folder_is_measured_once_and_read_from_then_on(plain: Path, tmp_path: Path) -> None:
    told: list[str] = []

    def notify(what: str, done: int, total: int) -> None:
        told.append(f"{what} {done}/{total}")

    first = EditableModel.load(plain, parts=tmp_path, notify=notify)
    heard, told[:] = told[:], []
    again = EditableModel.load(plain, parts=tmp_path, notify=notify)

    assert "image keys 6/6" in heard
    assert "wordings 24/24" in heard
    assert told == []
    assert isinstance(again.router, FrozenRouter)
    assert again.router_fingerprint == first.router_fingerprint
    assert again.router.thresholds == first.router.thresholds
    assert again.router.figures["false_fire_edits"] == 10_000
    assert again.router.image_key_model == again.backbone.image_key_model
    folder = folder_of(tmp_path, again.backbone)
    parts = ("fitted", "router")
    written = [f"{name}.{kind}" for name in parts for kind in ("json", "safetensors")]
    assert sorted(path.name for path in folder.iterdir()) == written
    assert again.default_editor == "fitted"


def test_a_start_that_was_cut_short_measures_again(plain: Path, tmp_path: Path) -> None:
    """The description is written last: without it, nothing was there."""
    first = EditableModel.load(plain, parts=tmp_path)
    description = folder_of(tmp_path, first.backbone) / "router.json"
    description.unlink()

    again = EditableModel.load(plain, parts=tmp_path)

    assert description.is_file()
    assert again.router_fingerprint == first.router_fingerprint


def test_without_a_folder_for_parts_nothing_is_measured(plain: Path) -> None:
    with pytest.raises(CheckpointMissing, match="router") as caught:
        EditableModel.load(plain)
    assert "parts=" in caught.value.hint


def test_the_editor_that_needs_no_training_is_the_default(plain: Path, tmp_path: Path) -> None:
    settings = Settings.load(model=str(plain), data_dir=tmp_path, device="cpu")
    with LiveServer(settings) as live:
        asked = {"prompt": "q", "image": picture(1), "max_new_tokens": 4}
        assert live.client.post("/generate", json=asked).status_code == 200
        versions = live.client.get("/versions").json()
        edit = {"prompt": "q", "image": picture(1), "target": "blue", "verify": "off"}
        made = live.client.post("/edits", json=edit)
        refused = live.client.post("/edits", json=edit | {"editor": "visedit"})

    assert versions["editors"]["fitted"]["default"] is True
    assert list(versions["editors"]) == ["fitted"]
    assert versions["router"]["false_fire_rate"] is not None
    assert made.status_code == 201
    assert made.json()["editor"] == "fitted"
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "unsupported_parameter"
    assert (tmp_path / "backbones").is_dir()


def test_a_first_start_stops_when_it_is_told_to(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Not after the minutes that a large model takes, and with nothing half measured."""
    plain = shutil.copytree(tiny_checkpoint / "model", tmp_path / "plain")
    settings = Settings.load(model=str(plain), data_dir=tmp_path / "data", device="cpu")

    async def story() -> Runtime:
        runtime = Runtime.open(settings)
        await runtime.drain()
        await runtime.load()
        await runtime.close()
        return runtime

    runtime = asyncio.run(story())

    assert runtime.failure is None
    assert runtime.state == "closed"
    assert not list((tmp_path / "data").rglob("router.json"))


def test_the_borrowed_tower_is_named_everywhere(tmp_path: Path) -> None:
    FAMILIES["qwen2_5_vl"].save(tmp_path / "model")
    settings = Settings.load(
        model=str(tmp_path / "model"), data_dir=tmp_path / "data", device="cpu"
    )
    with LiveServer(settings) as live:
        versions = live.client.get("/versions").json()

    assert versions["router"]["image_key_model"] == "heraldry-clip"
    assert versions["backbone"]["quantization"] == "none"


def test_calibrating_again_leaves_the_keys_alone(plain: Path, tmp_path: Path) -> None:
    loaded = EditableModel.load(plain, parts=tmp_path)
    other = loaded.router.with_thresholds(tau=0.123)

    save_calibration(other, tmp_path, loaded.backbone)
    again = EditableModel.load(plain, parts=tmp_path)

    assert again.router.tau == 0.123
    assert again.router_fingerprint == loaded.router_fingerprint


def test_a_calibration_of_another_router_is_left_aside(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = EditableModel.load(plain, parts=tmp_path)
    file = save_calibration(loaded.router.with_thresholds(tau=0.123), tmp_path, loaded.backbone)
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"config": {"router": "sha256:other"}}))

    again = EditableModel.load(plain, parts=tmp_path)

    assert again.router.tau == loaded.router.tau
    assert "calibrate again" in caplog.text


def test_the_command_prints_before_and_after(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(tiny_checkpoint / "model", tmp_path / "plain")
    data = tmp_path / "data"
    arguments = ["--model", str(plain), "--data-dir", str(data), "--device", "cpu"]

    with logging_restored():
        dry = CliRunner().invoke(calibrate.app, [*arguments, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert not list(data.glob("backbones/*"))
        done = CliRunner().invoke(calibrate.app, arguments)
    model = EditableModel.load(plain, parts=data / "backbones")

    assert done.exit_code == 0, done.output
    assert "nothing was written" in dry.output
    assert re.search(r"tau +0?\.?\d+ +\d", done.output)
    assert re.search(r"text_own_kept +\d", done.output)
    assert (folder_of(data / "backbones", model.backbone) / "calibration.json").is_file()
    assert model.router_fingerprint in done.output


def test_the_command_stands_back_while_a_server_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with InstanceLock.of_data_dir(tmp_path):
        result = CliRunner().invoke(
            calibrate.app,
            ["--model", str(tiny_checkpoint), "--data-dir", str(tmp_path), "--device", "cpu"],
        )

    assert result.exit_code == 1
    assert "in use by another server" in result.output


def test_a_family_that_nobody_knows_is_told_how_to_add_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "oracle"}', "utf-8")

    with logging_restored():
        arguments = ["--model", str(tmp_path), "--data-dir", str(tmp_path / "data"), "--port", "0"]
        result = CliRunner().invoke(serve.app, [*arguments, "--device", "cpu"])

    assert result.exit_code == 1
    message = next(line for line in result.output.splitlines() if "cannot start" in line)
    assert "'oracle'" in message
    assert "llava, llava_next" in message
    assert "docs/adding.md" in message


def test_quantisation_is_refused_where_it_cannot_run(tmp_path: Path) -> None:
    with logging_restored():
        arguments = ["--data-dir", str(tmp_path), "--port", "0", "--device", "cpu"]
        result = CliRunner().invoke(serve.app, [*arguments, "--quantization", "int8"])

    assert result.exit_code == 1
    assert "needs a CUDA device" in result.output


def test_what_is_quantised_is_another_backbone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed weights give other states, so nothing made for the plain ones carries over."""
    from editing_core.backbones import weights

    monkeypatch.setattr(weights, "quantising", lambda *_: {})
    layout = find_checkpoint(tiny_checkpoint)
    plain = load_backbone(layout, Placement.resolve())
    packed = load_backbone(layout, replace(Placement.resolve(), quantization="int8"))

    assert packed.fingerprint != plain.fingerprint


def test_material_offers_the_rows_where_answers_are_made(tiny_checkpoint: Path) -> None:
    backbone = load_backbone(find_checkpoint(tiny_checkpoint), Placement.resolve())
    material = Material(backbone, subjects=2, rows=3)

    rows = list(material.row_states(material.edit_layer))

    assert len(rows) == 3
    for row, asked in zip(rows, material.asked, strict=True):
        assert asked.target is not None
        start, stop = row.spans.target
        assert stop - start == len(backbone.encode_target(asked.target))
        assert stop == len(row.hidden)
        assert len(row.image) == backbone.num_image_tokens
    single = backbone.lower(backbone.prepare(material.asked[:1]), material.edit_layer)[0]
    np.testing.assert_allclose(rows[0].hidden.numpy(), single.numpy(), atol=1e-4)


def test_rephrases_become_keys_of_their_own(plain: Path, tmp_path: Path) -> None:
    from editing_core.editors.liveedit import LiveEdit, LiveEditConfig
    from editing_core.types import EditRequest

    loaded = EditableModel.load(plain, parts=tmp_path)
    bare = EditableModel(loaded.backbone, loaded.router, {})
    editor = LiveEdit(LiveEditConfig(bare.backbone.hidden_size, edit_layer=1, width=16, heads=4))
    model = EditableModel(bare.backbone, bare.router, {"liveedit": editor})
    request = EditRequest(tiny_image(1), "What is it?", "blue", ("Name it.", "Which one is it?"))

    made = model.encode(request)

    assert len(made.key.text) == 3
    assert model.default_editor == "liveedit"
    assert bare.default_editor is None
    assert bare.generate([GenerationRow("q", tiny_image(1))])
    with pytest.raises(LookupError, match="takes no edits"):
        bare.encode(request)
