"""What the embedded CLIP sees of its own world and of all other pictures, for the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editing_core.backbones.base import Backbone
from editing_core.heraldry.emblem import Split
from editing_core.training.eye_pictures import Album, Step
from editing_core.training.eye_pictures import Split as AlbumSplit
from editing_core.training.eye_views import view_of
from editing_core.training.world import FIRST_SUBJECT, draw_view, subject
from editing_core.types import ImageArray

_CHUNK = 256
_WORLD: dict[AlbumSplit, Split] = {
    "train": "train",
    "calibration": "calibration",
    "test": "unseen",
}


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
