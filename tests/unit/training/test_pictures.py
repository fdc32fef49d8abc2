"""Scenes, their look-alikes and their views."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from editing_core.training.pictures import draw_scene, look_alike, view_scene


def _scene_pixels(seed: int, *, changed: bool) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    scene = draw_scene(rng)
    other = look_alike(scene, rng)
    view = view_scene(other if changed else scene, np.random.default_rng([seed, 2]))
    return np.asarray(Image.fromarray(view).resize((64, 64)), dtype=np.float32)


def test_a_scene_and_its_views_are_functions_of_their_seeds() -> None:
    first, second = (draw_scene(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    view, again = (view_scene(first, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(view, again)


@pytest.mark.parametrize("seed", range(30))
def test_a_view_is_an_ordinary_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view = view_scene(draw_scene(rng), rng)
    assert view.dtype == np.uint8
    assert view.ndim == 3
    assert view.shape[2] == 3
    assert 48 <= min(view.shape[:2]) <= max(view.shape[:2]) <= 480


def test_a_look_alike_is_another_scene_and_seen_to_be() -> None:
    for seed in range(60):
        rng = np.random.default_rng([seed, 1])
        scene = draw_scene(rng)
        assert look_alike(scene, rng) != scene
        apart = np.abs(_scene_pixels(seed, changed=True) - _scene_pixels(seed, changed=False))
        assert (apart.max(axis=2) > 40).mean() > 0.005, seed


def test_views_of_one_scene_differ() -> None:
    rng = np.random.default_rng(3)
    scene = draw_scene(rng)
    first, second = view_scene(scene, rng), view_scene(scene, rng)
    assert first.shape != second.shape or bool((first != second).any())
