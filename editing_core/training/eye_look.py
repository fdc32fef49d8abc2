"""The frozen features of every picture and of its views: made once, kept, then trained on.

They are kept in shards, so that a run that is cut short goes on where it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editing_core.eyes.features import features_of
from editing_core.eyes.network import Network
from editing_core.training.eye_pictures import Album, Split, Step
from editing_core.training.eye_views import CHANGES, view_of
from editing_core.types import ImageArray

VIEWS = 3
"""Of each picture beside itself; of a picture that is only measured, one of each change."""
_SHARD = 64


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """`features` float16 `[pictures, 1 + views, width]`: the picture's own first.

    `families` `[pictures]`, `worlds` their names.
    """

    features: Tensor
    families: Tensor
    worlds: list[str]


def look(
    network: Network,
    album: Album,
    split: Split,
    *,
    most: int,
    cache: Path,
    seed: int,
    report: Step,
) -> Looks:
    """Features of at most `most` pictures of one split, from `cache` where they are there."""
    rows = album.rows(split, most=most, seed=seed)
    folder = cache / f"looks-{split}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(rows), _SHARD):
        end = min(start + _SHARD, len(rows))
        file = folder / f"{start:06d}-{end:06d}.pt"
        if not file.is_file():
            made = _shard(network, album, rows[start:end].tolist(), split, seed)
            torch.save(made, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        shards.append(torch.load(file, weights_only=True))
        report(f"{split}: pictures looked at", end, len(rows))
    families = torch.from_numpy(album.families[rows])
    return Looks(torch.cat(shards), families, album.worlds[rows].tolist())


def _shard(network: Network, album: Album, rows: list[int], split: Split, seed: int) -> Tensor:
    found = []
    for row in rows:
        image = album.pictures[row]
        found.append(features_of(network, [image, *_views(image, row, split, seed)]).half())
    return torch.stack(found)


def _views(image: ImageArray, row: int, split: Split, seed: int) -> list[ImageArray]:
    if split == "train":
        return [view_of(image, np.random.default_rng([seed, row, i])) for i in range(VIEWS)]
    return [
        view_of(image, np.random.default_rng([seed, row, i]), only=name)
        for i, name in enumerate(CHANGES)
    ]
