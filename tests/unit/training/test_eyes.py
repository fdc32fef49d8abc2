"""The recipe of the eyes: families and views, and a run that is resumed ends the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from editing_core.editable_model import EditableModel
from editing_core.eyes.eyes import load_eyes
from editing_core.eyes.features import framed
from editing_core.training import eye_pictures
from editing_core.training.eye_near import NEAR, near_of
from editing_core.training.eye_pictures import SIDE, collect
from editing_core.training.eye_run import train_eyes
from editing_core.training.eye_strangers import stranger
from editing_core.training.eye_tasks import EyesRecipe
from editing_core.training.eye_views import CHANGES, view_of


@pytest.fixture
def drawn_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache without packages: what is drawn needs no network."""
    sources = tmp_path / "sources.yaml"
    sources.write_text("leave_out: []\npackages: []\n", encoding="utf-8")
    monkeypatch.setattr(eye_pictures, "SOURCES", sources)
    monkeypatch.setattr(eye_pictures, "_GLYPHS", 240)
    monkeypatch.setattr(eye_pictures, "_BANDS", 240)
    return tmp_path / "cache"


def quiet(*_: object) -> None:
    """Nobody wants to know."""


def test_families_are_split_whole_and_fewer_pictures_are_the_first_of_more(
    drawn_only: Path,
) -> None:
    album = collect(drawn_only, report=quiet)
    assert album.pictures.shape[1:] == (SIDE, SIDE, 3)
    for family in np.unique(album.families):
        assert len(set(album.splits[album.families == family])) == 1
    many, few = (album.rows("train", most=most, seed=1) for most in (90, 30))
    assert many[:30].tolist() == few.tolist()
    assert set(album.worlds[few]) == {"glyphs", "bands"}


@pytest.mark.parametrize("name", list(CHANGES))
def test_every_change_gives_another_picture_and_the_same_one_again(name: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    first, again = (view_of(image, np.random.default_rng(5), only=name) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert np.array_equal(first, again)
    assert first.shape != image.shape or not np.array_equal(first, image)


@pytest.mark.parametrize("name", list(NEAR))
def test_a_near_picture_differs_and_is_drawn_again_the_same(name: str) -> None:
    image = stranger(np.random.default_rng(8))
    first, again = (near_of(image, np.random.default_rng(5), only=name) for _ in range(2))
    assert first.shape == image.shape
    assert np.array_equal(first, again)
    assert not np.array_equal(first, image)


def test_a_plain_picture_has_near_ones_too() -> None:
    plain = np.full((40, 60, 3), 90, np.uint8)
    for seed in range(10):
        assert not np.array_equal(near_of(plain, np.random.default_rng(seed)), plain)


def test_a_stranger_is_drawn_again_the_same_and_no_two_are_alike() -> None:
    drawn = [stranger(np.random.default_rng(seed)) for seed in range(40)]
    for seed, picture in enumerate(drawn):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert 36 <= min(picture.shape[:2]) <= max(picture.shape[:2]) <= 320
        assert np.array_equal(picture, stranger(np.random.default_rng(seed)))
    assert len({picture.tobytes() for picture in drawn}) == len(drawn)


def test_a_frame_goes_and_a_band_stays() -> None:
    bands = np.zeros((192, 192, 3), dtype=np.uint8)
    bands[:, :64], bands[:, 64:128], bands[:, 128:] = (0, 0, 200), (255, 255, 255), (200, 0, 0)
    assert framed(bands) == (0, 0, 192, 192)
    inside = bands.copy()
    inside[:20], inside[-20:], inside[:, :20], inside[:, -20:] = 127, 127, 127, 127
    left, top, right, bottom = framed(inside)
    assert (left, top) == (21, 21)
    assert (right, bottom) == (171, 171)


def test_a_short_run_makes_eyes_that_load_and_goes_on_where_it_ended(
    drawn_only: Path, tmp_path: Path
) -> None:
    backbone = EditableModel.load(editors=(), questions="none", eyes="none").backbone
    told: list[str] = []

    def run(steps: int, tau: float) -> dict[str, float]:
        return train_eyes(
            backbone,
            out=tmp_path / "eyes",
            work=tmp_path / "work",
            cache=drawn_only,
            tau=tau,
            steps=steps,
            judge_steps=steps,
            recipe=EyesRecipe(judge_pairs=96),
            pictures=24,
            measured=8,
            seed=3,
            notify=lambda what, done, total: told.append(what),
        )

    figures = run(2, 0.9999)
    assert figures["cut"] < figures["tau"]
    eyes = load_eyes(tmp_path / "eyes")
    assert eyes is not None
    clip_key = np.ones(eyes.config.clip_dim, np.float32) / eyes.config.clip_dim**0.5
    plain = np.full((40, 40, 3), 90, np.uint8)
    key = eyes.key(plain, clip_key, torch.zeros(eyes.config.gate_width))
    assert eyes.same(key.sketch, [key.sketch]) == [True]
    assert np.linalg.norm(key.image) == pytest.approx(1.0, abs=1e-5)
    # So few pictures leave some shares without any, and a NaN equals nothing.
    assert run(2, 0.9999) == pytest.approx(figures, rel=0.0, abs=0.0, nan_ok=True)
