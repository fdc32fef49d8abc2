"""A picture file becomes the same pixels here as when it is sent to the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from app.decoding import MAX_PIXELS as SERVICE_PIXELS
from app.images import MAX_BYTES as SERVICE_BYTES
from app.images import decode
from editing_core.evaluation.datasets import pictures
from editing_core.evaluation.datasets.pictures import PictureError, read_picture
from tests.support.tiny_model import tiny_image


def rgb() -> Image.Image:
    return Image.fromarray(tiny_image(3, height=20, width=31))


def save_upside_down(path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    rgb().save(path, "JPEG", exif=exif)


def save_palette(path: Path) -> None:
    rgb().quantize(8).save(path, "PNG", transparency=2)


def save_alpha(path: Path) -> None:
    layered = rgb().convert("RGBA")
    layered.putalpha(Image.linear_gradient("L").resize(layered.size))
    layered.save(path, "PNG")


def save_sixteen_bits(path: Path) -> None:
    deep = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(deep).save(path, "PNG")


def save_frames(path: Path) -> None:
    rgb().save(path, "GIF", save_all=True, append_images=[rgb().rotate(180)])


WAYS: list[Callable[[Path], None]] = [
    save_upside_down,
    save_palette,
    save_alpha,
    save_sixteen_bits,
    save_frames,
    lambda path: rgb().convert("CMYK").save(path, "JPEG"),
    lambda path: rgb().convert("L").save(path, "WEBP", lossless=True),
    lambda path: rgb().convert("1").save(path, "PNG"),
]


@pytest.mark.parametrize("save", WAYS)
def test_pixels_are_those_of_the_service(save: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "picture"
    save(path)
    found = read_picture(path)
    assert found.dtype == np.uint8
    assert not found.flags.writeable
    assert np.array_equal(found, decode(path.read_bytes()).pixels)


def test_limits_are_those_of_the_service() -> None:
    assert (pictures.MAX_BYTES, pictures.MAX_PIXELS) == (SERVICE_BYTES, SERVICE_PIXELS)


def test_what_is_no_picture_says_so(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(path)
    path.write_bytes(b"%PDF-1.7")
    with pytest.raises(PictureError, match="no readable"):
        read_picture(path)
    rgb().save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PictureError, match="no readable"):
        read_picture(path)


def test_a_picture_over_a_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    Image.new("1", (10_001, 2_500)).save(path)
    with pytest.raises(PictureError, match="10001x2500 pixels"):
        read_picture(path)
    Image.new("1", (10_000, 9_000)).save(path)  # where Pillow itself begins to warn
    with pytest.raises(PictureError, match="10000x9000 pixels"):
        read_picture(path)
    path.write_bytes(b"\0" * (pictures.MAX_BYTES + 1))
    with pytest.raises(PictureError, match="bytes; the limit is"):
        read_picture(path)
