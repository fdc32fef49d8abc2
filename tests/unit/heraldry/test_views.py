"""Views: repeatable, different from one another, and true to the region map."""

from __future__ import annotations

import numpy as np
import pytest

from editing_core.heraldry.drawing import (
    CANVAS,
    FIRST_CHARGE,
    OUTSIDE,
    SECOND_CHARGE,
    coverage,
    draw_emblem,
)
from editing_core.heraldry.emblem import OUTLINES, PATTERNS, SHAPES, emblem_from_seed
from editing_core.heraldry.views import VIEW_SIZE, view_of


def test_the_same_view_is_the_same_picture() -> None:
    emblem = emblem_from_seed(5)
    first = view_of(emblem, seed=5, view=0)
    again = view_of(emblem, seed=5, view=0)
    assert np.array_equal(first.image, again.image)
    assert first.image.shape == (VIEW_SIZE, VIEW_SIZE, 3)
    assert first.image.dtype == np.uint8


def test_other_views_and_training_views_are_other_pictures() -> None:
    emblem = emblem_from_seed(5)
    public = view_of(emblem, seed=5, view=0).image
    assert not np.array_equal(public, view_of(emblem, seed=5, view=1).image)
    training = view_of(emblem, seed=5, view=0, purpose="training").image
    assert not np.array_equal(public, training)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_hold_their_region_and_lie_in_the_picture(seed: int) -> None:
    view = view_of(emblem_from_seed(seed), seed=seed, view=0)
    box = view.box((FIRST_CHARGE, SECOND_CHARGE))
    assert box is not None
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= VIEW_SIZE
    assert 0 <= y0 < y1 <= VIEW_SIZE
    outside = view.regions.copy()
    outside[y0:y1, x0:x1] = OUTSIDE
    assert not np.isin(outside, (FIRST_CHARGE, SECOND_CHARGE)).any()


def test_a_region_that_is_not_there_has_no_box() -> None:
    single = next(s for s in range(100) if not emblem_from_seed(s).is_pair)
    assert view_of(emblem_from_seed(single), seed=single, view=0).box((SECOND_CHARGE,)) is None


def test_every_outline_pattern_and_shape_can_be_drawn() -> None:
    missing = {*OUTLINES, *PATTERNS, *SHAPES}
    for seed in range(400):
        emblem = emblem_from_seed(seed)
        picture, regions = draw_emblem(emblem)
        assert picture.size == regions.size == (CANVAS, CANVAS)
        missing -= {emblem.outline, emblem.pattern, *(c.shape for c in emblem.charges)}
    assert not missing


def test_coverage_counts_every_pixel_once() -> None:
    view = view_of(emblem_from_seed(2), seed=2, view=0)
    counted = coverage(view.regions, 8)
    assert counted.shape == (8, 8, 6)
    assert (counted.sum(axis=-1) == (VIEW_SIZE // 8) ** 2).all()
