from __future__ import annotations

import numpy as np
import pytest

from editing_core.backbones.images import letterbox, to_pil
from tests.support.tiny_model import tiny_image


def test_a_square_image_is_left_alone() -> None:
    image = tiny_image(0)
    assert letterbox(image) is image


@pytest.mark.parametrize(("height", "width"), [(10, 30), (30, 10), (7, 8), (1, 5), (3, 1)])
def test_nothing_is_cropped_and_the_rest_is_grey(height: int, width: int) -> None:
    image = tiny_image(1, height=height, width=width)
    square = letterbox(image)
    side = max(height, width)
    assert square.shape == (side, side, 3)
    top, left = (side - height) // 2, (side - width) // 2
    assert np.array_equal(square[top : top + height, left : left + width], image)
    outside = np.ones((side, side), dtype=bool)
    outside[top : top + height, left : left + width] = False
    assert np.all(square[outside] == 127)


@pytest.mark.parametrize(("height", "width"), [(1, 3_000_000), (3_000_000, 1), (2_000, 6_000)])
def test_the_square_around_a_long_picture_is_bounded(height: int, width: int) -> None:
    square = letterbox(np.full((height, width, 3), 200, dtype=np.uint8))

    side = 4096
    assert square.shape == (side, side, 3)
    inside = np.all(square == 200, axis=2)
    assert inside.sum() == side * max(1, round(side * min(height, width) / max(height, width)))
    assert np.all(square[~inside] == 127)


def test_a_three_pixel_image_keeps_its_channels() -> None:
    image = np.zeros((3, 3, 3), dtype=np.uint8)
    image[..., 0] = 200
    assert to_pil(image).getpixel((1, 1)) == (200, 0, 0)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((4, 4), "uint8"), ((4, 4, 4), "uint8"), ((0, 4, 3), "uint8"), ((4, 4, 3), "float32")],
)
def test_other_arrays_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="uint8"):
        letterbox(np.zeros(shape, dtype=dtype))
