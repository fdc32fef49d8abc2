"""A few kilobytes must not stop the server: pictures that cost much, lie, or carry odd metadata."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import threading
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.decode_process import DecodeProcess
from app.decoding import load
from app.errors import ImageUndecodable
from app.image_parts import MAX_PARTS, Unreadable, parts_of
from app.images import ImageDecoder
from editing_core.types import ImageArray
from tests.integration.test_errors_table import check
from tests.support.hostile import chunk, costly, gif_of, jpeg_of, png_of, scan_bomb, segment
from tests.support.server import data_uri, eventually, png
from tests.support.tiny_model import tiny_image

PIXELS = tiny_image(7, height=24, width=31)
PNG = png(PIXELS)
SMALL = 2 * 1024 * 1024
"""Enough to be beyond every bound, and quick to send."""


def ask(data: bytes) -> dict[str, Any]:
    return {"image": data_uri(data), "prompt": "q", "max_new_tokens": 1}


@pytest.mark.parametrize("name", costly(64))
def test_a_costly_picture_is_refused_and_the_next_question_answered(
    client: httpx.Client, name: str
) -> None:
    response = client.post("/generate", json=ask(costly(SMALL)[name]))

    check(response, 422, "image_undecodable", "image")
    assert client.post("/generate", json=ask(PNG)).status_code == 200


@pytest.mark.parametrize("name", ["scans_400.jpg", "tiny_pieces.png"])
def test_a_costly_picture_makes_no_edit(client: httpx.Client, name: str) -> None:
    body = ask(costly(SMALL)[name]) | {"target": "blue"}
    del body["max_new_tokens"]

    check(client.post("/edits", json=body), 422, "image_undecodable", "image")


def test_what_a_progressive_picture_asks_for_is_said() -> None:
    with pytest.raises(Unreadable, match="32 passes"):
        load(scan_bomb(5000, 40))
    assert load(scan_bomb(64, 400)).width == 64  # a small one may be as fine as it likes


def test_a_picture_that_takes_too_long_ends_its_process_and_no_other() -> None:
    process = DecodeProcess(limit_s=0.05)
    try:
        with pytest.raises(Unreadable, match=r"longer than 0\.05 seconds"):
            process.decode(scan_bomb(5000, 25))
        process._limit_s = 60
        assert np.array_equal(process.decode(PNG), PIXELS)
    finally:
        process.close()


def test_a_picture_that_is_being_decoded_does_not_hold_up_the_end() -> None:
    """Its process is ended with it, however long it would have taken."""

    async def ended() -> None:
        decoder = ImageDecoder(workers=1, limit_s=3600)
        bomb = data_uri(scan_bomb(5000, 32))

        async def decoding() -> None:
            async with decoder.open(bomb):
                raise AssertionError("it was decoded")

        task = asyncio.create_task(decoding())
        (process,) = decoder._large._all
        await asyncio.to_thread(eventually, lambda: process._process is not None)
        await asyncio.to_thread(decoder.close)
        with pytest.raises(ImageUndecodable, match="longer than"):
            await task

    asyncio.run(ended())


def test_a_small_picture_does_not_wait_for_a_costly_one(monkeypatch: pytest.MonkeyPatch) -> None:
    release, decode = threading.Event(), DecodeProcess.decode

    def stuck(self: DecodeProcess, data: bytes) -> ImageArray:
        if data != PNG:
            release.wait(120)
        return decode(self, data)

    async def both() -> None:
        decoder = ImageDecoder(workers=1)

        async def decoded(data: bytes) -> int:
            async with decoder.open(data_uri(data)) as image:
                return len(image.pixels)

        costly = asyncio.create_task(decoded(scan_bomb(2000, 1)))
        await asyncio.sleep(0)  # it is there first
        assert await decoded(PNG) == 24
        assert not costly.done()
        release.set()
        assert await costly == 2000
        decoder.close()

    monkeypatch.setattr(DecodeProcess, "decode", stuck)
    asyncio.run(both())


def test_processes_that_nobody_needs_any_more_end_and_are_followed_by_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []
    begin = subprocess.Popen

    def is_there(pid: int) -> bool:
        return Path(f"/proc/{pid}").exists()

    def counted(*arguments: Any, **more: Any) -> Any:
        process = begin(*arguments, **more)
        started.append(process.pid)
        return process

    async def large_ones() -> None:
        decoder = ImageDecoder(workers=2)

        async def decoded(data: bytes) -> int:
            async with decoder.open(data_uri(data)) as image:
                return len(image.pixels)

        large = scan_bomb(2000, 1)
        assert sum(await asyncio.gather(decoded(large), decoded(large))) == 4000
        assert len(started) == 2
        await asyncio.to_thread(eventually, lambda: not any(map(is_there, started)))
        assert await decoded(large) == 2000
        assert len(started) == 3
        decoder.close()

    monkeypatch.setattr("app.images.REST_S", 1.0)
    monkeypatch.setattr(subprocess, "Popen", counted)
    asyncio.run(asyncio.wait_for(large_ones(), 120))


def test_a_killed_process_is_followed_by_another() -> None:
    process = DecodeProcess(limit_s=60)
    try:
        assert np.array_equal(process.decode(PNG), PIXELS)
        process.kill()
        assert process._process is not None
        process._process.wait()
        assert np.array_equal(process.decode(PNG), PIXELS)
    finally:
        process.close()


def test_a_process_that_dies_while_it_is_written_to_is_followed_by_another() -> None:
    process = DecodeProcess(limit_s=60)
    try:
        assert np.array_equal(process.decode(PNG), PIXELS)
        assert process._process is not None
        assert process._process.stdin is not None
        process._process.stdin.write(b"half a picture")
        process.kill()
        process._process.wait()
        assert np.array_equal(process.decode(PNG), PIXELS)
    finally:
        process.close()


def test_hundreds_of_segments_and_thousands_of_chunks_are_usual() -> None:
    assert load(jpeg_of(segment(0xE2, bytes(100)) * 300)).width == 64
    assert load(png_of(size=100, pieces=5000)).width == 100
    assert load(gif_of(b"\x21\xfe\1A\0" * 1000)).width == 16


def zipped(length: int) -> bytes:
    return zlib.compress(bytes(length))


BAD_CRC = struct.pack(">I", 3) + b"tEXt" + b"a\0b" + bytes(4)
METADATA = {
    "bad-crc": BAD_CRC,
    "zTXt-bomb": chunk(b"zTXt", b"Comment\0\0" + zipped(5_000_000)),
    "iTXt-bomb": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zipped(5_000_000)),
    "xmp-bomb": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zipped(5_000_000)),
    "xmp-garbage": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0nothing"),
    "profile-bomb": chunk(b"iCCP", b"p\0\0" + zipped(5_000_000)),
    "profile-garbage": chunk(b"iCCP", b"p\0\7???"),
    "exif-garbage": chunk(b"eXIf", b"??"),
    "exif-that-points-nowhere": chunk(b"eXIf", b"II*\0\xff\xff\xff\x7f"),
    "raw-profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n   4\nzz"),
    "bad-physical": chunk(b"pHYs", b""),
    "bad-gamma": chunk(b"gAMA", b""),
    "bad-chromaticity": chunk(b"cHRM", b"\0"),
    "bad-animation": chunk(b"acTL", b"\0"),
    "bad-frame": chunk(b"fcTL", bytes(26)),
}


@pytest.mark.parametrize("name", METADATA)
def test_faulty_metadata_of_a_png_spoils_no_pixel(client: httpx.Client, name: str) -> None:
    data = png_of(METADATA[name])

    assert client.post("/generate", json=ask(data)).status_code == 200
    pieces = list(load(data).pieces())
    assert {tuple(pixel) for piece in pieces for pixel in piece.reshape(-1, 3)} == {(200, 30, 30)}


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_garbage_in_exif_spoils_no_pixel(client: httpx.Client, kind: str) -> None:
    plain, odd = io.BytesIO(), io.BytesIO()
    Image.fromarray(PIXELS).save(plain, kind)
    Image.fromarray(PIXELS).save(odd, kind, exif=b"Exif\0\0garbage that is no TIFF")

    assert client.post("/generate", json=ask(odd.getvalue())).status_code == 200
    assert np.array_equal(whole(odd.getvalue()), whole(plain.getvalue()))


def whole(data: bytes) -> np.ndarray[Any, Any]:
    loaded = load(data)
    return np.concatenate([p.reshape(-1) for p in loaded.pieces()]).reshape(
        loaded.height, loaded.width, 3
    )


def test_a_text_after_the_pixels_may_be_cut() -> None:
    cut = png_of()[:-12] + chunk(b"tEXt", b"a\0" + bytes(100))[:40]

    assert load(cut).width == 8


@pytest.mark.parametrize("depth", [2, 4, 16])
def test_a_transparent_grey_is_white_at_every_depth(depth: int) -> None:
    """One row of two pixels: the transparent grey 1 (or 257), and one half as bright as white."""
    half = 2 ** (depth - 1)
    values = [257 if depth == 16 else 1, half]
    row = b"".join(v.to_bytes(2, "big") for v in values) if depth == 16 else bytes(
        [values[0] << 8 - depth | values[1] << 8 - 2 * depth]
    )  # fmt: skip
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, 0, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(">H", values[0]))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))

    left, right = whole(PNG[:8] + header + clear + pixels + chunk(b"IEND", b""))[0].tolist()

    assert left == [255, 255, 255]
    assert right == [half >> 8 if depth == 16 else half * 255 // (2**depth - 1)] * 3


def test_a_transparent_colour_of_sixteen_bits_is_white() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    clear = chunk(b"tRNS", struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC))
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x2000, 0x3000, 0x4000)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))

    data = PNG[:8] + header + clear + pixels + chunk(b"IEND", b"")

    assert whole(data)[0].tolist() == [[255, 255, 255], [0x20, 0x30, 0x40]]


def test_a_jpeg_without_its_end_is_told_so(client: httpx.Client) -> None:
    error = check(
        client.post("/generate", json=ask(jpeg_of()[:-2])), 422, "image_undecodable", "image"
    )

    assert "cut short: its end marker is missing" in error["message"]


def rotated(data: bytes) -> bool:
    return load(data).turn[0]


def test_a_rotation_is_read_wherever_it_is_written() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    raw = exif.tobytes()
    xmp = b'<x tiff:Orientation="6"/>'
    profile = f"\nexif\n{len(raw):8}\n{raw.hex()}\n"
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", profile, zip=True)
    raw_profile, webp = io.BytesIO(), io.BytesIO()
    Image.fromarray(PIXELS).save(raw_profile, "PNG", pnginfo=text)
    Image.fromarray(PIXELS).save(webp, "WEBP", xmp=xmp)

    assert rotated(png_of(chunk(b"eXIf", raw[6:]), BAD_CRC))
    assert rotated(raw_profile.getvalue())
    assert rotated(png_of(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)))
    assert rotated(jpeg_of(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)))
    assert rotated(jpeg_of(segment(0xE1, raw)))
    assert rotated(webp.getvalue())
    assert not rotated(png_of())


def test_a_webp_of_a_million_chunks_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "WEBP")
    data = buffer.getvalue() + b"ZZZZ\0\0\0\0" * MAX_PARTS

    with pytest.raises(Unreadable, match="chunks"):
        parts_of(data, "WEBP")


@pytest.mark.parametrize("uri", ["data:data:image/png;base64,", "DATA:data:;base64,"])
def test_a_data_uri_in_a_data_uri_is_refused(client: httpx.Client, uri: str) -> None:
    body = ask(PNG) | {"image": uri + data_uri(PNG).partition(",")[2]}

    check(client.post("/generate", json=body), 400, "image_base64_invalid", "image")
