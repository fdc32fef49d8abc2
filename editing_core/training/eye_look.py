"""What the frozen network tells of pictures, of their views and of near pictures: made once.

They are kept in shards, so that a run that is cut short goes on where it ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from editing_core.eyes.features import look_at, pooled
from editing_core.eyes.network import Network
from editing_core.eyes.sketch import Sketcher, fit_sketcher
from editing_core.training.eye_near import NEAR, near_of
from editing_core.training.eye_pictures import Album, Split, Step
from editing_core.training.eye_views import CHANGES, view_of
from editing_core.types import ImageArray

VIEWS = 3
"""Of each picture beside itself; of a picture that is only measured, one of each change."""
_NEAR = 3
"""Near pictures of each, the last one viewed; of one that is only measured, one of each kind."""
_SHARD = 64
_FITTED = 320
"""Pictures that the sketches' projections are fitted to."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """`features` float16 `[pictures, 1 + views, width]`: the picture's own first, and `near`
    likewise, `[pictures, nears, width]`. `sketches` int8 `[pictures, 1 + views + nears, SIZE]`.

    `families` `[pictures]`, `worlds` their names.
    """

    features: Tensor
    near: Tensor
    sketches: Tensor
    families: Tensor
    worlds: list[str]


def sketcher_of(network: Network, album: Album, *, most: int, cache: Path, seed: int) -> Sketcher:
    """Fitted to a few of at most `most` pictures that are trained on, once; kept in `cache`."""
    file = cache / f"sketcher-{seed}.pt"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        rows = album.rows("train", most=min(_FITTED, most), seed=seed + 1)
        pairs: tuple[list[tuple[Tensor, Tensor]], ...] = ([], [])
        for start in range(0, len(rows), _SHARD):
            own = [album.pictures[row] for row in rows[start : start + _SHARD]]
            for found, images in zip(pairs, (own, [each[:, ::-1] for each in own]), strict=True):
                maps, _ = look_at(network, images)
                found.append((maps[0], maps[1]))
        torch.save(fit_sketcher(*pairs).state_dict(), file.with_suffix(".part"))
        file.with_suffix(".part").replace(file)
    kept = torch.load(file, weights_only=True)
    sketcher = Sketcher(len(kept["low_mean"]), len(kept["middle_mean"]))
    sketcher.load_state_dict(kept)
    return sketcher


def look(
    network: Network,
    sketcher: Sketcher,
    album: Album,
    split: Split,
    *,
    most: int,
    cache: Path,
    seed: int,
    report: Step,
) -> Looks:
    """Of at most `most` pictures of one split, from `cache` where they are there."""
    rows = album.rows(split, most=most, seed=seed)
    folder = cache / f"looks-and-sketches-{split}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for start in range(0, len(rows), _SHARD):
        end = min(start + _SHARD, len(rows))
        file = folder / f"{start:06d}-{end:06d}.pt"
        if not file.is_file():
            made = _shard(network, sketcher, album, rows[start:end].tolist(), split, seed)
            torch.save(made, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        shards.append(torch.load(file, weights_only=True))
        report(f"{split}: pictures looked at", end, len(rows))
    features, near, sketches = (torch.cat(each) for each in zip(*shards, strict=True))
    families = torch.from_numpy(album.families[rows])
    return Looks(features, near, sketches, families, album.worlds[rows].tolist())


def _shard(
    network: Network, sketcher: Sketcher, album: Album, rows: list[int], split: Split, seed: int
) -> tuple[Tensor, ...]:
    found = []
    for row in rows:
        image = album.pictures[row]
        views, near = _views(image, row, split, seed), _near(image, row, split, seed)
        maps, pixels = look_at(network, [image, *views, *near])
        features = pooled(maps, pixels).half()
        apart = 1 + len(views)
        found.append((features[:apart], features[apart:], sketcher(maps, pixels)))
    return tuple(torch.stack(each) for each in zip(*found, strict=True))


def _views(image: ImageArray, row: int, split: Split, seed: int) -> list[ImageArray]:
    if split == "train":
        return [view_of(image, np.random.default_rng([seed, row, i])) for i in range(VIEWS)]
    return [
        view_of(image, np.random.default_rng([seed, row, i]), only=name)
        for i, name in enumerate(CHANGES)
    ]


def _near(image: ImageArray, row: int, split: Split, seed: int) -> list[ImageArray]:
    rng = np.random.default_rng([seed, row, 77])
    if split == "train":
        found = [near_of(image, rng) for _ in range(_NEAR)]
        return [*found[:-1], view_of(found[-1], rng)]
    return [near_of(image, rng, only=name) for name in NEAR]
