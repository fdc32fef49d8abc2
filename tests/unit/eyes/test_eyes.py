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
from editing_core.eyes.judge import Judge
from editing_core.eyes.pairs import MOST_JUDGED
from editing_core.eyes.sketch import SIZE, Sketch, Sketcher
from editing_core.heraldry.sample import draw_sample
from editing_core.training.eye_views import view_of
from editing_core.types import ImageArray, no_sketch
from tests.support.strange_pictures import repainted, strange_picture

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
        assert not embedded_model.picture_key(emblem).sketch.size  # so nothing judges it
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
    sketcher = Sketcher(config.sketch_low, config.sketch_middle)
    judge = Judge(wide=1, deep=1, hidden=1)
    made = Eyes(network, head, first, other, sketcher, judge, config, fingerprint="sha256:made")
    clip_key = np.ones(config.clip_dim, np.float32) / config.clip_dim**0.5
    picture = made.key(strange_picture(3), clip_key, torch.zeros(config.gate_width))
    key = picture.image
    assert bool(picture.sketch.size) is not is_known
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


def sketch_of(model: EditableModel, image: ImageArray) -> Sketch:
    return model.picture_key(image).sketch


@pytest.mark.parametrize("change", ["border", "mirror", "recompress", "small", "blur", "light"])
def test_side_by_side_a_view_is_the_same_picture(
    embedded_model: EditableModel, eyes: Eyes, change: str
) -> None:
    kept = []
    for seed in FOREIGN:
        own = strange_picture(seed)
        view = view_of(own, np.random.default_rng(seed), only=change)
        kept += eyes.same(sketch_of(embedded_model, view), [sketch_of(embedded_model, own)])
    assert sum(kept) >= len(FOREIGN) - 1


def test_side_by_side_another_shade_is_another_picture(
    embedded_model: EditableModel, eyes: Eyes
) -> None:
    own = [strange_picture(seed) for seed in FOREIGN]
    near = [repainted(each) for each in own]
    for first, second in zip(own, near, strict=True):
        sketches = [sketch_of(embedded_model, each) for each in (first, second)]
        assert sketches[0].shape == (SIZE,)
        assert eyes.same(sketches[0], sketches) == [True, False]
        assert eyes.same(sketches[0], sketches) == [True, False]  # from memory, too


def test_the_nearest_few_are_judged_and_the_rest_are_others(
    embedded_model: EditableModel, eyes: Eyes
) -> None:
    own = sketch_of(embedded_model, strange_picture(FOREIGN[0]))
    slightly = []
    for place in range(MOST_JUDGED + 3):
        other = own.copy()
        other[place] += 1
        slightly.append(other)
    # An equal sketch and one of a picture without need no judge, however many are nearer.
    told = eyes.same(own, [*slightly, own, no_sketch()])
    assert told == [True] * MOST_JUDGED + [False] * 3 + [True, True]
    assert eyes.same(no_sketch(), slightly) == [True] * len(slightly)


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
    [
        ({"constant": 0.0}, "not what"),
        ({"width": 3}, "not what"),
        ({"hidden": "x"}, "bad"),
        ({"judge_wide": 3}, "not what"),
        ({"sketch_low": 0.5}, "bad"),
    ],
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
