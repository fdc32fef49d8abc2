"""Pictures from requests: one decoding for all formats, whatever is odd about them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

import app.decoding
import app.images
from app.decode_process import DecodeProcess
from app.errors import ImageBase64Invalid, ImageTooManyPixels, ImageUndecodable
from app.image_headers import read_header
from app.images import ImageDecoder, check_size, decode, decode_png, encode_png, read_field
from editing_core.types import ImageArray
from tests.support.server import png
from tests.support.tiny_model import tiny_image

PIXELS = tiny_image(3, height=40, width=56)
GREY = PIXELS[:, :, 0]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_the_digest_is_as_documented() -> None:
    height, width, _ = PIXELS.shape
    content = b"errata-image-v1" + struct.pack("<II", width, height) + PIXELS.tobytes()

    assert decode(png(PIXELS)).digest == f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize(
    "data",
    [
        png(PIXELS),
        png(PIXELS, kind="WEBP", lossless=True),
        encoded(Image.fromarray(PIXELS).convert("RGBA"), "PNG"),
        png(PIXELS, compress_level=1, dpi=(300, 300)),
    ],
    ids=["png", "webp", "opaque", "other-png"],
)
def test_lossless_encodings_are_one_picture(data: bytes) -> None:
    decoded = decode(data)

    assert np.array_equal(decoded.pixels, PIXELS)
    assert decoded.digest == decode(png(PIXELS)).digest
    assert decoded.pixels.dtype == np.uint8
    assert not decoded.pixels.flags.writeable


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(GREY), "PNG"),
        encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"),
        encoded(Image.fromarray(GREY), "GIF"),
        encoded(Image.fromarray(GREY).convert("LA"), "PNG"),
        encoded(Image.fromarray(GREY).convert("P"), "PNG"),
    ],
    ids=["8-bit", "16-bit", "gif", "with-alpha", "palette"],
)
def test_grey_is_grey_in_every_encoding(data: bytes) -> None:
    assert np.array_equal(decode(data).pixels, np.repeat(GREY[:, :, None], 3, axis=2))


def test_alpha_is_laid_over_white() -> None:
    layers = np.zeros((2, 3, 4), dtype=np.uint8)
    layers[:, :, 0] = 100
    layers[0, :, 3] = [0, 51, 255]

    row = decode(encoded(Image.fromarray(layers), "PNG")).pixels[0]

    assert row.tolist() == [[255, 255, 255], [224, 204, 204], [100, 0, 0]]


def test_a_transparent_colour_is_white() -> None:
    picture = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))

    pixels = decode(encoded(picture, "PNG", transparency=(1, 2, 3))).pixels

    assert pixels.tolist() == [[[255, 255, 255], [9, 9, 9]]]


def test_only_the_first_frame_counts() -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]

    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).pixels

    assert np.array_equal(pixels[:, :, 0], GREY)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_orientation_is_applied(orientation: int, kind: str) -> None:
    """Against Pillow's own idea of upright; 0 and 9 do not exist and mean nothing."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    plain = decode(encoded(Image.fromarray(PIXELS), kind)).pixels
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    expected = Image.fromarray(plain)
    if orientation in turned:
        expected = expected.transpose(turned[orientation])

    pixels = decode(encoded(Image.fromarray(PIXELS), kind, exif=exif)).pixels

    assert np.array_equal(pixels, np.asarray(expected))


def test_cmyk_becomes_rgb() -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))

    red, green, blue = decode(encoded(picture, "JPEG", quality=95)).pixels[4, 4].tolist()

    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("size", [(40, 56), (56, 40), (1, 300), (300, 1)])
def test_pictures_are_put_together_from_strips(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = tiny_image(4, height=size[0], width=size[1])
    monkeypatch.setattr(app.decoding, "_PIECE_PIXELS", 200)

    assert np.array_equal(decode(png(pixels)).pixels, pixels)


def test_what_is_stored_has_no_metadata() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    decoded = decode(encoded(Image.fromarray(PIXELS), "PNG", exif=exif, dpi=(72, 72)))

    stored = encode_png(decoded.pixels)

    assert np.array_equal(decode_png(stored), PIXELS)
    with Image.open(io.BytesIO(stored)) as picture:
        assert picture.info == {}
        assert b"somebody" not in stored


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_headers_are_read_and_cuts_are_noticed(kind: str) -> None:
    data = encoded(Image.fromarray(PIXELS), kind)
    header = read_header(data)
    assert header is not None
    assert (header.format, header.size) == (kind, (56, 40))
    with pytest.raises(ImageUndecodable):
        decode(data[: len(data) // 2])
    for end in range(14, 40):
        cut = read_header(data[:end])
        assert cut is not None
        assert cut.size in (None, (56, 40))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 50}, {"exif": b"Exif\0\0"}])
def test_every_kind_of_webp_header_is_read(options: dict[str, object]) -> None:
    header = read_header(encoded(Image.fromarray(PIXELS), "WEBP", **options))

    assert header is not None
    assert header.size == (56, 40)


@pytest.mark.parametrize("data", [b"", b"\x89", b"BM" + bytes(60), b"RIFF1234WAVE", b"<svg/>"])
def test_anything_else_has_no_header(data: bytes) -> None:
    assert read_header(data) is None


@pytest.mark.parametrize("length", [1, 196_607, 196_608, 196_609, 400_000])
def test_base64_is_read_as_in_one_piece(length: int) -> None:
    field = base64.b64encode(bytes(length)).decode()

    assert read_field(field) == bytes(length)
    for broken in (f"{field}=", field[:-1], f"{field[:-4]}AA==AAAA", f"AA=={field}", f"\n{field}"):
        with pytest.raises(ImageBase64Invalid):
            read_field(broken)


def test_base64_may_not_be_padded_where_a_piece_ends() -> None:
    piece = base64.b64encode(bytes(196_607)).decode()
    assert len(piece) == 2**18

    with pytest.raises(ImageBase64Invalid, match="padding"):
        read_field(piece + piece)


def canvas(width: int, height: int) -> bytes:
    """The beginning of a WebP that says it is so large."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + sizes


def test_a_webp_may_have_fewer_pixels_than_others() -> None:
    """Since its decoder holds four times what others hold."""
    assert check_size(canvas(4096, 4096)) == (4096, 4096)
    with pytest.raises(ImageTooManyPixels, match=r"WEBP has 4097x4096 pixels; .* 16,777,216"):
        check_size(canvas(4097, 4096))


def test_large_webps_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their decoder holds four times what others hold. Decoded, they are like any other."""
    monkeypatch.setattr(app.images, "WEBP_PIXELS_AT_ONCE", 40 * 56)
    field = base64.b64encode(encoded(Image.fromarray(PIXELS), "WEBP", lossless=True)).decode()
    at_work: list[int] = []
    most: list[int] = []

    def counted(_: DecodeProcess, data: bytes) -> ImageArray:
        at_work.append(1)
        most.append(len(at_work))
        pixels = decode(data).pixels.copy()
        at_work.pop()
        return pixels

    async def hold(decoder: ImageDecoder, all_of_them: asyncio.Barrier) -> None:
        async with decoder.open(field) as image:
            assert np.array_equal(image.pixels, PIXELS)
            await all_of_them.wait()

    async def everybody() -> None:
        decoder, all_of_them = ImageDecoder(workers=4), asyncio.Barrier(4)
        await asyncio.gather(*(hold(decoder, all_of_them) for _ in range(4)))
        decoder.close()

    monkeypatch.setattr(DecodeProcess, "decode", counted)
    asyncio.run(everybody())

    assert most == [1] * 4


def test_all_requests_together_hold_a_bounded_number_of_pixels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app.images, "PIXELS_AT_ONCE", 2 * 40 * 56)
    field = base64.b64encode(png(PIXELS)).decode()
    held: list[int] = []
    most: list[int] = []
    two: asyncio.Barrier

    async def hold(decoder: ImageDecoder) -> ImageArray:
        async with decoder.open(field) as image:
            held.append(1)
            most.append(len(held))
            await two.wait()  # of the eight, always two are there together
            held.pop()
            return image.pixels

    async def everybody() -> None:
        nonlocal two
        two = asyncio.Barrier(2)
        decoder = ImageDecoder(workers=4)
        await asyncio.gather(*(hold(decoder) for _ in range(8)))
        decoder.close()

    asyncio.run(everybody())

    assert len(most) == 8
    assert max(most) == 2
