"""Other views of a picture: of the same size, seeded, and still the same picture."""

from __future__ import annotations

import numpy as np
import pytest

from editing_core.augmentations import Strength, augmented, shrunk
from tests.support.tiny_model import tiny_image


@pytest.mark.parametrize(("height", "width"), [(48, 48), (30, 70), (1, 9), (200, 20)])
def test_views_keep_size_and_type_and_follow_the_seed(height: int, width: int) -> None:
    image = tiny_image(3, height=height, width=width)
    first, again, other = (augmented(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    if height > 1:
        assert not np.array_equal(first, other)


def test_a_view_of_no_strength_is_the_picture() -> None:
    image = tiny_image(3, height=40, width=60)
    nothing = Strength(turn=0.0, scale=0.0, shift=0.0, light=0.0, blur=0.0)
    assert np.array_equal(augmented(image, np.random.default_rng(0), strength=nothing), image)


def test_what_is_in_the_middle_stays_and_no_corner_turns_black() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    image[25:35, 25:35] = (20, 20, 220)
    for seed in range(20):
        view = augmented(image, np.random.default_rng(seed)).astype(int)
        assert view[30, 30, 2] - view[30, 30, 0] > 60
        corners = view[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.min() > 100


def test_a_picture_taken_from_further_off_stands_before_another_ground() -> None:
    image = np.full((60, 60, 3), 200, np.uint8)
    image[20:40, 20:40] = (20, 20, 220)
    far = Strength(turn=0.0, scale=0.0, shift=0.0, light=0.0, blur=0.0, away=0.4)
    blues, grounds = set(), set()
    for seed in range(12):
        view = augmented(image, np.random.default_rng(seed), strength=far)
        blue = (view == (20, 20, 220)).all(-1)
        assert blue.any()
        blues.add(int(blue.sum()))
        grounds.add(tuple(view[0, 0].tolist()))
    assert min(blues) < 200 < max(blues) <= 400
    assert len(grounds) > 6


def test_slant_cast_and_grain_change_the_picture_and_follow_the_seed() -> None:
    image = tiny_image(3, height=40, width=60)
    for change in ({"shear": 0.3}, {"cast": 0.2}, {"grain": 20.0}):
        strength = Strength(turn=0.0, scale=0.0, shift=0.0, light=0.0, blur=0.0, **change)
        views = [
            augmented(image, np.random.default_rng(seed), strength=strength) for seed in (1, 1, 2)
        ]
        assert np.array_equal(views[0], views[1])
        assert not np.array_equal(views[0], views[2])
        assert not np.array_equal(views[0], image)


def test_large_pictures_are_shrunk_in_proportion_and_small_ones_are_left() -> None:
    large, small = tiny_image(0, height=300, width=200), tiny_image(0, height=30, width=100)
    assert shrunk(large, 100).shape == (100, 67, 3)
    assert shrunk(small, 100) is small
