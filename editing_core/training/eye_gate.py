"""What the embedded CLIP and the network see of emblems and of other pictures, for the gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.eyes.features import features_of
from editing_core.eyes.network import Network
from editing_core.heraldry.emblem import Split
from editing_core.heraldry.views import VIEW_SIZE
from editing_core.training.eye_pictures import Album, Step
from editing_core.training.eye_pictures import Split as AlbumSplit
from editing_core.training.eye_strangers import stranger
from editing_core.training.eye_views import CHANGES, view_of
from editing_core.training.world import FIRST_SUBJECT, draw_view, subject
from editing_core.types import ImageArray

_CHUNK = 256
_WORLD: dict[AlbumSplit, Split] = {
    "train": "train",
    "calibration": "calibration",
    "test": "unseen",
}
_FIRST_SIGHT = FIRST_SUBJECT + 50_000
_STREAMS: dict[AlbumSplit, int] = {"train": 80, "calibration": 81, "test": 82}


def glances(
    backbone: Backbone,
    album: Album,
    split: AlbumSplit,
    *,
    known: int,
    foreign: int,
    cache: Path,
    seed: int,
    report: Step,
) -> tuple[Tensor, Tensor]:
    """`(known, foreign)`, `[n, width]` each, of so many emblems and at most so many others.

    Of each as it is and as someone shows it again, so that no border makes an emblem foreign.
    """
    rows = album.rows(split, most=foreign, seed=seed)
    sources = {
        f"known-{known}": _emblems(known, _WORLD[split], seed),
        f"foreign-{len(rows)}": ((album.pictures[row], int(row)) for row in rows),
    }
    found = []
    for name, pictures in sources.items():
        file = cache / f"glances-{split}-{name}-{seed}.pt"
        if not file.is_file():
            made = []
            for number, (image, own) in enumerate(pictures):
                again = view_of(image, np.random.default_rng([seed, own, 5]))
                for shown in (image, again):
                    made.append(backbone.glance(shown))
                if (number + 1) % _CHUNK == 0:
                    report(
                        f"{split}: pictures for the gate, {name}", number + 1, max(known, foreign)
                    )
            torch.save(torch.stack(made), file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        found.append(torch.load(file, weights_only=True))
    return found[0], found[1]


def _emblems(count: int, split: Split, seed: int) -> Iterator[tuple[ImageArray, int]]:
    for number in range(FIRST_SUBJECT + seed, FIRST_SUBJECT + seed + count):
        (image,), _ = subject(number, split).pictures(1, draw_view)
        yield image, number


@dataclass(frozen=True, slots=True, eq=False)
class Sights:
    """What both gates, and the CLIP's keys, make of pictures and their views, its own first.

    `features` float16 `[pictures, views, width]` of the network, `glances` and `keys` of the CLIP.
    """

    features: Tensor
    glances: Tensor
    keys: Tensor


def sights(
    network: Network,
    backbone: Backbone,
    album: Album,
    split: AlbumSplit,
    *,
    known: int,
    foreign: int,
    cache: Path,
    seed: int,
    report: Step,
) -> tuple[Sights, Sights]:
    """`(known, foreign)`: so many emblems; drawn strangers, and pictures of the album.

    The album's are shown as small as an emblem's view is, so that no gate reads the size.
    """
    sources = (
        ("known", known, _emblem_views(known, split, seed)),
        ("foreign", foreign, _foreign_views(album, foreign, split, seed)),
    )
    found = []
    for name, count, pictures in sources:
        file = cache / f"sights-{split}-{name}-{count}-{seed}.pt"
        if not file.is_file():
            made: list[tuple[Tensor, Tensor, Tensor]] = []
            for views in pictures:
                keys = np.stack([each.key for each in backbone.image_features(views)])
                seen = torch.stack([backbone.glance(view) for view in views])
                made.append(
                    (features_of(network, views).half(), seen.half(), torch.from_numpy(keys))
                )
                if len(made) % 64 == 0:
                    report(f"{split}: pictures for the second gate, {name}", len(made), count)
            torch.save(
                tuple(torch.stack(each) for each in zip(*made, strict=True)),
                file.with_suffix(".part"),
            )
            file.with_suffix(".part").replace(file)
        found.append(Sights(*torch.load(file, weights_only=True)))
    return found[0], found[1]


def _emblem_views(count: int, split: AlbumSplit, seed: int) -> Iterator[list[ImageArray]]:
    """An emblem, another view of it, one change after the other, and several, maybe enlarged."""
    names = list(CHANGES)
    first = _FIRST_SIGHT + seed
    for number in range(first, first + count):
        own, other = subject(number, _WORLD[split]).pictures(2, draw_view)[0]
        rng = np.random.default_rng([seed, number, 6])
        singles = [names[(2 * number + i) % len(names)] for i in range(2)]
        changed = [view_of(_enlarged(own, rng), rng, only=name) for name in singles]
        yield [own, other, *changed, view_of(_enlarged(other, rng), rng)]


def _foreign_views(
    album: Album, count: int, split: AlbumSplit, seed: int
) -> Iterator[list[ImageArray]]:
    rows = album.rows(split, most=count // 2, seed=seed)
    for row in rows:
        rng = np.random.default_rng([seed, int(row), 7])
        small = Image.fromarray(album.pictures[row]).resize((VIEW_SIZE, VIEW_SIZE))
        yield [np.asarray(small), view_of(np.asarray(small), rng)]
    for number in range(count - len(rows)):
        rng = np.random.default_rng([seed, number, _STREAMS[split]])
        own = stranger(rng)
        yield [own, view_of(own, rng)]


def _enlarged(image: ImageArray, rng: np.random.Generator) -> ImageArray:
    if rng.random() < 0.5:
        return image
    side = int(rng.integers(VIEW_SIZE, 3 * VIEW_SIZE))
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))
