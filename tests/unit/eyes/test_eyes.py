"""Eyes beside a CLIP: who keeps which key, and what is refused at load."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.errors import CheckpointCorrupt, CheckpointMissing
from editing_core.eyes.eyes import (
    SHIPPED,
    SHIPPED_BASE,
    Eyes,
    Gate,
    Head,
    load_eyes,
    read_network,
    with_constant,
)
from editing_core.heraldry.sample import draw_sample
from tests.support.strange_pictures import strange_picture

FOREIGN = (3, 4, 5, 6, 7)


@pytest.fixture(scope="module")
def eyes() -> Eyes:
    found = load_eyes(SHIPPED)
    assert found is not None
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "eyes"))


def test_emblems_keep_the_clip_s_key_and_others_get_the_eyes_own(
    embedded_model: EditableModel, eyes: Eyes
) -> None:
    plain = EditableModel.load(questions="none", eyes="none")
    assert embedded_model.backbone.fingerprint == plain.backbone.fingerprint
    assert embedded_model.eyes_fingerprint == eyes.fingerprint
    dim = plain.backbone.image_key_dim
    for seed in FOREIGN:
        emblem = draw_sample(915_500 + seed).picture.image
        key = embedded_model.image_key(emblem)
        assert np.array_equal(key[:dim], plain.image_key(emblem))
        assert not key[dim:].any()
        foreign = embedded_model.image_key(strange_picture(seed))
        assert not foreign[:dim].any()
        assert key @ foreign == 0.0
        assert np.linalg.norm(foreign) == pytest.approx(1.0, abs=1e-5)


class NoNetwork:
    """Fails where it is asked."""

    def __call__(self, pixels: object) -> object:
        raise AssertionError("the network was asked")


@pytest.mark.parametrize(
    ("score", "second", "is_known"), [(3.0, -1.0, True), (1.0, 1.0, True), (1.0, -1.0, False)]
)
def test_the_second_gate_is_asked_where_the_first_is_not_sure(
    eyes: Eyes, score: float, second: float, is_known: bool
) -> None:
    config = replace(eyes.config, sure=2.0)
    network: Any = NoNetwork() if score > config.sure else read_network(SHIPPED_BASE)
    head = Head(config.width, hidden=config.hidden, dim=config.dim)
    first, other = always(config.gate_width, score), always(config.width, second)
    made = Eyes(network, head, first, other, config, fingerprint="sha256:made")
    clip_key = np.ones(config.clip_dim, np.float32) / config.clip_dim**0.5
    key = made.key(strange_picture(3), clip_key, torch.zeros(config.gate_width))
    assert bool(key[: config.clip_dim].any()) is is_known
    assert bool(key[config.clip_dim :].any()) is not is_known


def always(width: int, score: float) -> Gate:
    gate = Gate(width, hidden=1)
    torch.nn.init.zeros_(gate.second.weight)
    torch.nn.init.constant_(gate.second.bias, score)
    return gate


def test_a_copy_passes_and_another_picture_does_not(embedded_model: EditableModel) -> None:
    tau = embedded_model.router.tau
    own, other = strange_picture(FOREIGN[0]), strange_picture(FOREIGN[1])
    bordered = np.pad(own, ((4, 4), (4, 4), (0, 0)), constant_values=127)
    key = embedded_model.image_key(own)
    assert key @ embedded_model.image_key(bordered) >= tau
    assert key @ embedded_model.image_key(other) < tau


def test_the_constant_part_moves_cosines_onto_the_router_s_line() -> None:
    keys = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    moved = with_constant(keys, torch.full((4,), 0.4))
    assert torch.allclose(moved @ moved.T, 0.4 + 0.6 * (keys @ keys.T), atol=1e-6)


def test_eyes_without_their_package_are_none_and_the_log_says_so(
    copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    document = json.loads((copy / "eyes.json").read_text("utf-8"))
    document["base"]["package"] = "no_such_package_of_eyes"
    (copy / "eyes.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointMissing, match="not installed"):
        load_eyes(copy)
    monkeypatch.setattr("editing_core.eyes.eyes.SHIPPED", copy)
    caplog.set_level(logging.WARNING)
    assert load_eyes() is None
    assert "there are no eyes" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [({"constant": 0.0}, "not what"), ({"width": 3}, "not what"), ({"hidden": "x"}, "bad")],
)
def test_damage_is_named(copy: Path, change: dict[str, object], says: str) -> None:
    document = json.loads((copy / "eyes.json").read_text("utf-8"))
    document["config"] |= change
    (copy / "eyes.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointCorrupt, match=says):
        load_eyes(copy)


def test_another_network_is_refused(copy: Path) -> None:
    document = json.loads((copy / "eyes.json").read_text("utf-8"))
    document["base"]["sha256"] = "0" * 64
    (copy / "eyes.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CheckpointCorrupt):
        load_eyes(copy)
