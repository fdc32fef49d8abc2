"""Pictures that the eyes are trained on: photographs cut into crops, graphics, glyphs, bands.

    albums = collect(cache, report=...)      # fetches, unpacks and reads; a second call only maps

Every picture has a *family*: pictures that look alike and are not the same (crops of one
photograph, one drawing in other colours, glyphs of one font). They are each other's nearest
negatives. Families are split, never pictures, so what is held out is like nothing trained on.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from editing_core.errors import TrainingError

logger = logging.getLogger(__name__)

Split = Literal["train", "calibration", "test"]
World = Literal["photographs", "graphics", "glyphs", "bands"]
Step = Callable[[str, int, int], None]
"""`(what, done, total)`."""

SIDE = 160
"""Pictures are kept as squares of so many pixels: the eyes look at squares."""
SOURCES = Path(__file__).parent / "eye_sources.yaml"
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_LEAST_SIDE = 48
_WIDTH = 1600
_CELLS = ((1, 1), (3, 2), (5, 4))
_GLYPHS, _BANDS = 500, 700
_WORLD_SHARES: dict[World, float] = {
    "photographs": 0.36,
    "graphics": 0.46,
    "glyphs": 0.06,
    "bands": 0.12,
}
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789&%@#?ЖЯФШДЮΩΨΣΔΘ"
_SHARES: dict[Split, range] = {
    "calibration": range(1),
    "test": range(1, 2),
    "train": range(2, 20),
}


@dataclass(frozen=True, slots=True, eq=False)
class Album:
    """Pictures `uint8 [n, SIDE, SIDE, 3]`, with each one's world and family."""

    pictures: NDArray[np.uint8]
    worlds: NDArray[np.str_]
    families: NDArray[np.int64]
    splits: NDArray[np.str_]

    def rows(self, split: Split, *, most: int, seed: int) -> NDArray[np.int64]:
        """Numbers of at most `most` pictures of one split, worlds mixed by their shares.

        Families stay together, and fewer pictures are the first of more.
        """
        rows = np.flatnonzero(self.splits == split)
        rng = np.random.default_rng([seed, 17])
        # By world, so that many crops of few photographs do not crowd out the graphics.
        chosen: list[NDArray[np.int64]] = []
        turns: list[NDArray[np.float64]] = []
        for world, share in _WORLD_SHARES.items():
            own = rows[self.worlds[rows] == world]
            order = rng.permutation(np.unique(self.families[own]))
            place = {int(family): i for i, family in enumerate(order)}
            ranked = np.argsort([place[int(f)] for f in self.families[own]], kind="stable")
            chosen.append(own[ranked])
            turns.append((np.arange(len(own)) + 1) / share)
        return np.concatenate(chosen)[np.argsort(np.concatenate(turns), kind="stable")][:most]


def collect(cache: Path, *, report: Step) -> Album:
    """All pictures of `eye_sources.yaml` and the drawn ones, kept below `cache`.

    Raises `TrainingError` where a package cannot be fetched or is not the pinned one.
    """
    pixels, names = cache / "pictures.npy", cache / "pictures.npz"
    if not names.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        found = list(_all_pictures(cache, report))
        part = cache / "pictures.part.npy"
        np.save(part, np.stack([picture for picture, _, _ in found]))
        part.replace(pixels)
        worlds = np.array([world for _, world, _ in found])
        told = [family for _, _, family in found]
        order = {name: number for number, name in enumerate(dict.fromkeys(told))}
        np.savez(
            names.with_suffix(".part.npz"),
            worlds=worlds,
            families=np.array([order[name] for name in told]),
            splits=np.array([_split_of(name) for name in told]),
        )
        names.with_suffix(".part.npz").replace(names)
    with np.load(names) as kept:
        return Album(
            np.load(pixels, mmap_mode="r"), kept["worlds"], kept["families"], kept["splits"]
        )


def square(picture: Image.Image) -> NDArray[np.uint8]:
    """The picture as a square of `SIDE` pixels, its sides scaled apart."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _split_of(family: str) -> Split:
    number = int(hashlib.sha256(family.encode()).hexdigest(), 16) % 20
    return next(split for split, numbers in _SHARES.items() if number in numbers)


Named = tuple[NDArray[np.uint8], World, str]


def _all_pictures(cache: Path, report: Step) -> Iterator[Named]:
    listed = yaml.safe_load(SOURCES.read_text("utf-8"))
    for number, package in enumerate(listed["packages"]):
        report("packages", number, len(listed["packages"]))
        files = _files(_unpacked(package, cache), package, listed["leave_out"])
        if package["kind"] == "photographs":
            for file in files:
                yield from _crops(file)
        else:
            for file in _few(files, package["most"]):
                yield from _drawing(file)
    yield from _glyphs()
    yield from _bands()


def _unpacked(package: dict[str, Any], cache: Path) -> Path:
    """The folder of a package's files. Raises `TrainingError`."""
    folder = cache / "packages" / f"{package['name']}-{package['version'].replace(':', '_')}"
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    run = partial(subprocess.run, cwd=part, check=True, capture_output=True)
    try:
        run(["apt-get", "download", "-qq", f"{package['name']}={package['version']}"])
        (archive,) = part.glob("*.deb")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != package["sha256"]:
            raise TrainingError(f"{archive} is not the pinned package")
        run(["dpkg-deb", "-x", archive.name, "."])
        archive.unlink()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise TrainingError(
            f"the Debian package {package['name']} {package['version']} cannot be fetched: {error}",
            hint="The recipe needs apt-get and dpkg-deb, and a mirror of Debian 12.",
        ) from error
    part.replace(folder)
    return folder


def _files(folder: Path, package: dict[str, Any], leave_out: Sequence[str]) -> list[Path]:
    """Pictures of a package, the largest of each name, in the order of names."""
    best: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        inside = str(file.relative_to(folder)).lower()
        if file.suffix not in _SUFFIXES or file.is_symlink() or not file.is_file():
            continue
        if any(word in inside for word in leave_out):
            continue
        if package.get("under", "").lower() not in inside:
            continue
        # Wallpapers come in several sizes, and some names say nothing but the size.
        name = inside if package["kind"] == "graphics" else str(file.parent)
        if package["kind"] == "photographs" and "contents" not in inside:
            name = inside
        if name not in best or file.stat().st_size > best[name].stat().st_size:
            best[name] = file
    return [best[name] for name in sorted(best)]


def _few(files: Sequence[Path], most: int) -> Sequence[Path]:
    """At most so many, spread over all."""
    return [files[i] for i in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int)]


def _read(file: Path, *, most_pixels: int) -> Image.Image | None:
    try:
        with Image.open(file) as picture:
            picture.draft("RGB", (_WIDTH, _WIDTH))  # a JPEG is read at about that size
            if picture.width * picture.height > most_pixels:
                return None
            return picture.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        logger.warning("%s cannot be read and is left out", file)
        return None


def _crops(file: Path) -> Iterator[Named]:
    picture = _read(file, most_pixels=30_000_000)
    if picture is None:
        return
    picture = picture.convert("RGB")
    picture.thumbnail((_WIDTH, _WIDTH), reducing_gap=2.0)
    width, height = picture.size
    for columns, rows in _CELLS:
        for number in range(columns * rows):
            x, y = number % columns, number // columns
            box = (x * width // columns, y * height // rows)
            end = ((x + 1) * width // columns, (y + 1) * height // rows)
            cell = square(picture.crop((*box, *end)))
            # A piece of plain sky is no picture of anything.
            if cell.std(axis=(0, 1)).max() > 12:
                yield cell, "photographs", f"photograph {file.name} {file.parent.parent.name}"


def _drawing(file: Path) -> Iterator[Named]:
    picture = _read(file, most_pixels=1_500_000)
    if picture is None or min(picture.size) < _LEAST_SIDE:
        return
    name = f"graphic {file.stem}"
    rng = np.random.default_rng(list(name.encode()))
    ground = (255, 255, 255) if rng.random() < 0.7 else tuple(rng.integers(0, 256, 3).tolist())
    flat = Image.new("RGB", picture.size, ground)
    flat.paste(picture, mask=picture.getchannel("A"))
    pixels = square(flat)
    if pixels.std(axis=(0, 1)).max() < 6:
        return
    yield pixels, "graphics", name
    if rng.random() < 0.3:
        # Turned colours: another picture, which a grey copy would not tell from this one.
        turned = np.asarray(flat.resize((SIDE, SIDE)).convert("HSV")).copy()
        turned[..., 0] += np.uint8(rng.integers(50, 206))
        other = np.asarray(Image.fromarray(turned, "HSV").convert("RGB"))
        if np.abs(other.astype(int) - pixels).mean() > 12:
            yield other, "graphics", name


def _glyphs() -> Iterator[Named]:
    """Letters and signs in matplotlib's fonts, four of each family in the same colours."""
    from matplotlib import get_data_path

    # The display fonts lack most letters.
    found = sorted(Path(get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
    fonts = [font for font in found if "Display" not in font.name]
    rng = np.random.default_rng(41)
    for number in range(_GLYPHS // 4):
        ink, ground = _two_colours(rng)
        font = ImageFont.truetype(str(fonts[number % len(fonts)]), 120)
        for letter in rng.choice(list(_LETTERS), 4, replace=False):
            picture = Image.new("RGB", (SIDE, SIDE), ground)
            middle = (SIDE // 2, SIDE // 2)
            ImageDraw.Draw(picture).text(middle, str(letter), ink, font, anchor="mm")
            yield np.asarray(picture), "glyphs", f"glyphs {number}"


def _bands() -> Iterator[Named]:
    """Plain shapes in few colours; of each family four that differ in colours or their order."""
    rng = np.random.default_rng(43)
    for number in range(_BANDS // 4):
        count, shape = int(rng.integers(2, 6)), int(rng.integers(5))
        edges = np.linspace(0, SIDE, count + 1)
        colours = rng.integers(0, 256, (count + 1, 3))
        for variant in range(4):
            painted = colours.copy()
            if variant == 1:
                painted = np.roll(painted, 1, 0)  # not reversed: that would be a mirrored view
            elif variant > 1:
                painted[int(rng.integers(count + 1))] = 255 - painted[int(rng.integers(count + 1))]
                painted[int(rng.integers(count + 1))] = rng.integers(0, 256, 3)
            yield _painted(painted, edges, shape), "bands", f"bands {number}"


def _painted(colours: NDArray[Any], edges: NDArray[Any], shape: int) -> NDArray[np.uint8]:
    picture = Image.new("RGB", (SIDE, SIDE))
    pen = ImageDraw.Draw(picture)
    inks = [tuple(colour) for colour in colours.tolist()]
    for i, ink in enumerate(inks[:-1]):
        low, high = int(edges[i]), int(edges[i + 1])
        pen.rectangle((0, low, SIDE, high) if shape % 2 else (low, 0, high, SIDE), ink)
    near, far = SIDE // 4, SIDE - SIDE // 4
    if shape == 2:
        pen.ellipse((near, near, far, far), inks[-1])
    elif shape == 3:
        pen.polygon([(0, 0), (SIDE // 2, SIDE // 2), (0, SIDE)], inks[-1])
    elif shape == 4:
        pen.rectangle((0, near * 3 // 2, SIDE, far - near // 2), inks[-1])
        pen.rectangle((near, 0, near * 2, SIDE), inks[-1])
    return np.asarray(picture)


def _two_colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ink and ground that can be told apart."""
    while True:
        ink, ground = rng.integers(0, 256, (2, 3))
        if np.abs(ink - ground).sum() > 200:
            return tuple(ink.tolist()), tuple(ground.tolist())
