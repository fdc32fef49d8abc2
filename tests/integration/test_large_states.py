"""A model with states beyond float16, as real ones have: measured, served, and started again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.settings import Settings
from app.store.database import Database
from app.store.edit_log import EditLog
from editing_core.editable_model import EditableModel, GenerationRow
from editing_core.errors import NotFinite
from editing_core.experts.codec import decode_artifact
from editing_core.experts.weights import round_weights, save_part, weights_fingerprint
from editing_core.first_start import measure
from editing_core.first_start.material import Material
from editing_core.parts import folder_of
from editing_core.types import Sampling
from tests.integration.test_restart import ask, edit
from tests.support.plain_llava import save_plain_llava
from tests.support.server import LiveServer
from tests.support.tiny_model import tiny_image

LARGEST = torch.finfo(torch.float16).max


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(backbone: Any, **given: Any) -> Material:
        return Material(backbone, subjects=6, rows=6, **given)

    monkeypatch.setattr(measure, "Material", small)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its first block writes about 70,000 into one coordinate of every row."""
    folder = save_plain_llava(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(
        n for n in weights if n.endswith("language_model.model.layers.0.mlp.down_proj.weight")
    )
    weights[name][3] *= 3e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_it_is_measured_once_and_starts_again(folder: Path, tmp_path: Path) -> None:
    first = EditableModel.load(folder, parts=tmp_path / "parts")
    fitted: Any = first.editors["fitted"]
    mean = fitted.module.first.mean
    assert float(mean.abs().max()) > LARGEST
    assert bool(mean.isfinite().all())

    again = EditableModel.load(folder, parts=tmp_path / "parts")

    assert again.editor_fingerprints == first.editor_fingerprints
    assert torch.equal(again.editors["fitted"].module.first.mean, mean)  # type: ignore[attr-defined]
    (answer,) = again.generate([GenerationRow("Is it blue?", tiny_image(1), Sampling(4))])
    assert answer.completion_tokens


def test_an_edit_of_such_a_model_holds_after_a_restart_and_is_taken_back_whole(
    folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"

    def start() -> LiveServer:
        return LiveServer(Settings.load(model=str(folder), data_dir=data, device="cpu"))

    with start() as server:
        before = ask(server)
        made = edit(server, verify="strict")
        after = ask(server)
        assert before["text"] != "blue"
        assert after["text"] == "blue"
    log = EditLog(Database.open(f"sqlite:///{data / 'errata.db'}"))
    stored = log.artifact(made["id"]).data
    assert stored is not None
    expert = decode_artifact(stored).payload
    assert float(expert["up"].abs().max()) > LARGEST

    with start() as server:
        assert ask(server) == after
        server.client.post(f"/admin/edits/{made['id']}/rollback")
        assert ask(server) | {"version": 0} == before
        assert server.client.post(f"/admin/edits/{made['id']}/reinstate").status_code == 200
        assert ask(server) | {"version": 1} == after


def spoilt(file: Path) -> None:
    tensors = load_file(file)
    name = max(tensors, key=lambda each: tensors[each].numel())
    save_file({**tensors, name: torch.full_like(tensors[name], torch.inf)}, file)


@pytest.mark.parametrize("name", ["router", "fitted"])
@pytest.mark.parametrize(
    "damage",
    [spoilt, lambda file: file.write_bytes(b"no safetensors"), lambda file: file.unlink()],
    ids=["infinite", "garbage", "gone"],
)
def test_a_damaged_measurement_is_made_again(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path], object],
) -> None:
    first = EditableModel.load(folder, parts=tmp_path)
    damage(folder_of(tmp_path, first.backbone) / f"{name}.safetensors")

    again = EditableModel.load(folder, parts=tmp_path)

    assert f"{name} is measured again" in caplog.text
    assert again.router_fingerprint == first.router_fingerprint
    assert again.editor_fingerprints == first.editor_fingerprints


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_never_written(tmp_path: Path, value: float) -> None:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.bias[0] = value
    weights, description = tmp_path / "part.safetensors", tmp_path / "part.json"

    with pytest.raises(NotFinite, match="bias"):
        save_part(weights, description, module, {})

    assert list(tmp_path.iterdir()) == []


def test_only_what_float16_cannot_hold_is_stored_wider(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    with torch.no_grad():
        module.bias[0] = 70_001.5
    round_weights(module)
    before = weights_fingerprint(module, {})

    save_part(tmp_path / "part.safetensors", tmp_path / "part.json", module, {"kind": "part"})

    stored = load_file(tmp_path / "part.safetensors")
    assert {name: tensor.dtype for name, tensor in stored.items()} == {
        "weight": torch.float16,
        "bias": torch.float32,
    }
    assert float(stored["bias"][0]) == 70_001.5
    module.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    assert weights_fingerprint(module, {}) == before
    assert json.loads((tmp_path / "part.json").read_text("utf-8")) == {"kind": "part"}
